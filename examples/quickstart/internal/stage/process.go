package stage

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopTimeout bounds how long a process may take to end; then it is killed.
const stopTimeout = 10 * time.Second

// process is a program that runs in a process group of its own and gets a SIGTERM when this process dies, even if this
// one is killed.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   *tail
	ended chan struct{} // closed once it has been waited for
	err   error         // why it ended; read after ended
}

// launch starts path with environ and nothing else of ours. What it prints goes to the file logs/name.log as well, unless
// logs is empty.
func launch(name, path string, environ []string, logs string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(path), log: &tail{}, ended: make(chan struct{})}
	p.cmd.Env = environ
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
	var out io.Writer = p.log
	var file *os.File
	if logs != "" {
		var err error
		if file, err = os.Create(filepath.Join(logs, name+".log")); err != nil {
			return nil, err
		}
		out = io.MultiWriter(p.log, file)
	}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	started := make(chan error)
	go func() {
		// The kernel sends the death signal when the thread that forked ends, so this goroutine keeps its thread.
		runtime.LockOSThread()
		defer close(p.ended)
		defer file.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			p.err = p.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		<-p.ended
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return p, nil
}

// stop ends the process and waits for its end. It returns an error if the process had to be killed.
func (p *process) stop() error {
	p.cmd.Process.Signal(syscall.SIGTERM) // if it has ended by itself, the wait below returns at once
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-p.ended:
		return nil
	case <-timer.C:
	}
	p.cmd.Process.Kill()
	<-p.ended
	return fmt.Errorf("%s did not end within %v of SIGTERM and was killed", p.name, stopTimeout)
}

// died describes the end of a process that should be running.
func (p *process) died() error {
	how := "exit status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	return fmt.Errorf("%s ended by itself (%s); its last lines:\n%w", p.name, how, errors.New(p.log.String()))
}

// tailLines is how many lines a tail keeps.
const tailLines = 10

// tail keeps the last lines that are written to it. It is safe for concurrent use.
type tail struct {
	mu    sync.Mutex
	lines []string
	rest  []byte // a line that hasn't ended
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rest = append(t.rest, b...)
	for {
		line, rest, found := bytes.Cut(t.rest, []byte("\n"))
		if !found {
			return len(b), nil
		}
		t.lines = append(t.lines, string(line))
		t.lines = t.lines[max(0, len(t.lines)-tailLines):]
		t.rest = bytes.Clone(rest)
	}
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := t.lines
	if len(t.rest) > 0 {
		all = append(all[:len(all):len(all)], string(t.rest))
	}
	return "  " + strings.Join(all, "\n  ")
}
