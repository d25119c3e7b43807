package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/logtest"
)

// process is a program that a test started. It ends with the test at the latest.
type process struct {
	cmd    *exec.Cmd
	stderr *logtest.Page
	ended  chan struct{} // closed once it has been waited for
}

// canary begins every secret that the tests make up, so that one search finds any of them in what came out.
const canary = "canary-"

// start starts the program at path with environ and nothing else of the caller's. An option may change the command.
func start(t testing.TB, path string, environ []string, options ...func(*exec.Cmd)) *process {
	t.Helper()
	p := &process{cmd: exec.Command(path), stderr: &logtest.Page{}, ended: make(chan struct{})}
	p.cmd.Env = append([]string{"GORACE=atexit_sleep_ms=0"}, environ...)
	p.cmd.Dir = "/"
	p.cmd.Stdout, p.cmd.Stderr = p.stderr, p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	for _, o := range options {
		o(p.cmd)
	}
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the thread that forked ends, so this goroutine keeps its thread.
		runtime.LockOSThread()
		defer close(p.ended)
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.tidy(t) })
	return p
}

// tidy ends the process if it still runs, and looks at all that it printed.
func (p *process) tidy(t testing.TB) {
	p.cmd.Process.Kill()
	<-p.ended
	out := p.stderr.String()
	if t.Failed() {
		t.Logf("%s printed:\n%s", p.cmd.Path, out)
	}
	if strings.Contains(out, "DATA RACE") {
		t.Errorf("%s has a data race:\n%s", p.cmd.Path, out)
	}
	for _, secret := range []string{canary, "hvs."} {
		if strings.Contains(out, secret) {
			t.Errorf("%s printed a secret (%s…)", p.cmd.Path, secret)
		}
	}
}

// signal sends s; a process that has ended already is fine.
func (p *process) signal(s syscall.Signal) { p.cmd.Process.Signal(s) }

// stop sends SIGTERM and returns the exit code.
func (p *process) stop(t testing.TB) int {
	t.Helper()
	p.signal(syscall.SIGTERM)
	return p.exit(t)
}

// kill sends SIGKILL and waits for the end.
func (p *process) kill() {
	p.cmd.Process.Kill()
	<-p.ended
}

// exit waits for the end and returns the exit code.
func (p *process) exit(t testing.TB) int {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		t.Fatalf("%s doesn't end", p.cmd.Path)
	}
	return p.cmd.ProcessState.ExitCode()
}

// runs reports whether the process has not ended yet.
func (p *process) runs() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// logged is a line of a log in JSON, as far as tests look at it.
type logged struct {
	Level, Msg, File, Kind, Reason, Listen, Version string
	Generation                                      uint64
}

// log returns what the process has logged so far.
func (p *process) log() []logged {
	var lines []logged
	for line := range bytes.Lines([]byte(p.stderr.String())) {
		var l logged
		if json.Unmarshal(line, &l) == nil && l.Msg != "" {
			lines = append(lines, l)
		}
	}
	return lines
}

// count returns how many of the logged lines are as match says.
func (p *process) count(match func(logged) bool) int {
	n := 0
	for _, l := range p.log() {
		if match(l) {
			n++
		}
	}
	return n
}

// awaitLine waits for a line with that message and returns it.
func (p *process) awaitLine(t testing.TB, msg string) (found logged) {
	t.Helper()
	eventually(t, "the line "+msg, func() bool {
		for _, l := range p.log() {
			if l.Msg == msg {
				found = l
				return true
			}
		}
		if !p.runs() {
			t.Fatalf("%s ended before it logged %q", p.cmd.Path, msg)
		}
		return false
	})
	return found
}

// nobody is who runs what is tested with other permissions than ours.
const nobody = 65534

// asNobody runs a command under another uid, since root passes every permission check. A test that isn't run by root has
// such a uid already.
func asNobody(c *exec.Cmd) {
	if os.Geteuid() == 0 {
		c.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
}

// withArgs gives a command arguments.
func withArgs(args ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) { c.Args = append(c.Args, args...) }
}

// give hands files to who asNobody makes it.
func give(t testing.TB, paths ...string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	var errs []error
	for _, path := range paths {
		errs = append(errs, os.Chown(path, nobody, nobody))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}
