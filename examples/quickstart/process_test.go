package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/examples/logtest"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

// binaries are built once for all tests that start processes.
var binaries struct {
	once  sync.Once
	dir   string
	vault string
	err   error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if err := os.RemoveAll(binaries.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func build() (err error) {
	if binaries.vault, err = vaulttest.Binary(context.Background(), os.Stderr); err != nil {
		return err
	}
	if binaries.dir, err = os.MkdirTemp("", "quickstart-test-"); err != nil {
		return err
	}
	for name, path := range map[string]string{"agent": "agent", "app": "app", "quickstart": "examples/quickstart"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(binaries.dir, name), "github.com/keyturn/keyturn/"+path)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s", name, err, out)
		}
	}
	return nil
}

// show is one quickstart as a process, with places of its own for all that it leaves.
type show struct {
	cmd    *exec.Cmd
	out    *logtest.Page
	ended  chan error
	places []string
}

// start starts the quickstart with args. Its directories begin with the name that every process of it carries in its
// environment or arguments, so that a survivor is found.
func start(t *testing.T, environ, args []string, change ...func(*exec.Cmd)) *show {
	t.Helper()
	needBinaries(t)
	memory, err := os.MkdirTemp("/dev/shm", "quickstart-test-")
	if err != nil {
		t.Skipf("NOT TESTED, there is no /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(memory) })
	s := &show{out: &logtest.Page{}, ended: make(chan error, 1), places: []string{memory, t.TempDir()}}
	s.cmd = exec.Command(filepath.Join(binaries.dir, "quickstart"), args...)
	s.cmd.Env = append(os.Environ(), append(environ, "VAULT_BIN="+binaries.vault, "XDG_RUNTIME_DIR="+memory, "TMPDIR="+s.places[1])...)
	s.cmd.Stdout, s.cmd.Stderr = s.out, s.out
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for _, c := range change {
		c(s.cmd)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- s.cmd.Wait() }()
	return s
}

// prebuilt returns args for a quickstart that needn't build the binaries.
func prebuilt(t *testing.T, args ...string) []string {
	t.Helper()
	needBinaries(t)
	return append(args, "-agent", filepath.Join(binaries.dir, "agent"), "-app", filepath.Join(binaries.dir, "app"))
}

func needBinaries(t *testing.T) {
	t.Helper()
	if binaries.once.Do(func() { binaries.err = build() }); binaries.err != nil {
		vaulttest.Missing(t, binaries.err)
	}
}

// patience bounds every wait, far above what a slow machine needs.
const patience = 90 * time.Second

// await waits until the output has text in it.
func (s *show) await(t *testing.T, text string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); !strings.Contains(s.out.String(), text); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("it never says %q:\n%s", text, s.out)
		}
	}
}

// end waits for the end, looks at what is left, and returns the exit code.
func (s *show) end(t *testing.T) int {
	t.Helper()
	select {
	case <-s.ended:
	case <-time.After(patience):
		s.cmd.Process.Kill()
		t.Fatalf("it doesn't end:\n%s", s.out)
	}
	for _, place := range s.places {
		filepath.WalkDir(place, func(path string, _ fs.DirEntry, err error) error {
			if err == nil && path != place {
				t.Errorf("it left %s", path)
			}
			return nil
		})
		if survivors := mentioning(place); len(survivors) > 0 {
			t.Errorf("it left processes: %q", survivors)
		}
	}
	return s.cmd.ProcessState.ExitCode()
}

// mentioning returns the command lines of the running processes that speak of text there or in their environment.
func mentioning(text string) []string {
	var all []string
	processes, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range processes {
		line, _ := os.ReadFile(p + "/cmdline") // a process may end meanwhile
		environ, _ := os.ReadFile(p + "/environ")
		if bytes.Contains(append(line, environ...), []byte(text)) && p != fmt.Sprintf("/proc/%d", os.Getpid()) {
			all = append(all, string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
		}
	}
	return all
}

func TestTheDemoShowsEachRotationAndLeavesNothing(t *testing.T) {
	s := start(t, nil, prebuilt(t, "-rotations", "2"))
	if code := s.end(t); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	out := s.out.String()
	for _, want := range []string{"rotation 1  generation 1 > 2  in use", "rotation 2  generation 2 > 3  in use", "0 failed", "2 rotations: the new key in use"} {
		if !strings.Contains(out, want) {
			t.Errorf("it doesn't say %q", want)
		}
	}
	if strings.ContainsAny(out, "\x1b\r") {
		t.Error("there are control codes in a pipe")
	}
	if t.Failed() {
		t.Log(out)
	}
}

func TestTheRealAPIIsAskedRarely(t *testing.T) {
	api := geminitest.NewServer()
	defer api.Close()
	api.Add("first-of-mine")
	api.Add("second-of-mine")
	keys := filepath.Join(t.TempDir(), "keys")
	if err := os.WriteFile(keys, []byte("first-of-mine\nsecond-of-mine\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	args := prebuilt(t)
	began := time.Now()
	s := start(t, []string{"GEMINI_API_KEYS_FILE=" + keys, "GOOGLE_GEMINI_BASE_URL=" + api.URL}, args)
	if code := s.end(t); code != exitDone {
		t.Errorf("exit code %d:\n%s", code, s.out)
	}
	most := max(12, 1+int(time.Since(began).Seconds())) // once a second, also on a machine that takes long for each rotation
	calls, first, second := 0, 0, 0
	for c, n := range api.Counts() {
		if c.Method == "models" {
			continue
		}
		calls += n
		switch c.Key {
		case 1:
			first += n
		case 2:
			second += n
		}
	}
	if calls > most || first == 0 || second == 0 {
		t.Errorf("%d calls, %d with the first key, %d with the second", calls, first, second)
	}
	if out := s.out.String(); !strings.Contains(out, "the real API") || !strings.Contains(out, "generation 2 > 3") || strings.Contains(out, "of-mine") {
		t.Error(out)
	}
}

func TestASignalLeavesNothing(t *testing.T) {
	for when, says := range map[string]string{
		"while Vault starts": "starting Vault",
		"before the load":    "rotation the old key",
		"under load":         "rotation 1",
	} {
		for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(fmt.Sprintf("%s %v", when, signal), func(t *testing.T) {
				s := start(t, nil, prebuilt(t))
				s.await(t, says)
				s.cmd.Process.Signal(signal)
				s.cmd.Process.Signal(signal) // an impatient person
				if code := s.end(t); code != exitFailed {
					t.Errorf("exit code %d", code)
				}
				if !strings.Contains(s.out.String(), "interrupted") {
					t.Errorf("it says %s", s.out)
				}
			})
		}
	}
}

func TestASignalDuringTheBuildLeavesNothing(t *testing.T) {
	s := start(t, nil, nil)
	s.await(t, "building keyturn-agent")
	s.cmd.Process.Signal(syscall.SIGINT)
	if code := s.end(t); code != exitFailed {
		t.Errorf("exit code %d:\n%s", code, s.out)
	}
}

// A reader that goes away, like head, must not cost the removal of what was started.
func TestAReaderThatGoesAwayLeavesNothing(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, nil, prebuilt(t), func(c *exec.Cmd) { c.Stdout = write })
	write.Close()
	if _, err := read.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	read.Close()
	if code := s.end(t); code != exitFailed {
		t.Errorf("exit code %d:\n%s", code, s.out)
	}
}

// The go command passes on a Ctrl-C, which the terminal sends to both, and no other signal.
func TestTheDeathOfGoRunEndsWhatItRan(t *testing.T) {
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("NOT TESTED, there is no shell")
	}
	content, err := os.ReadFile(shell)
	if err != nil {
		t.Fatal(err)
	}
	parent := filepath.Join(t.TempDir(), "go")
	if err := os.WriteFile(parent, content, 0o700); err != nil {
		t.Fatal(err)
	}
	s := start(t, nil, prebuilt(t), func(c *exec.Cmd) {
		c.Path, c.Args = parent, []string{parent, "-c", strings.Join(c.Args, " ") + "; true"}
	})
	s.await(t, "rotation 1")
	s.cmd.Process.Kill()
	s.await(t, "interrupted")
	for deadline := time.Now().Add(patience); len(mentioning(s.places[0])) > 0 && time.Now().Before(deadline); {
		<-time.After(10 * time.Millisecond)
	}
	s.end(t)
}
