package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/agent/internal/slowtest"
	"github.com/keyturn/keyturn/examples/lagtest"
)

func TestTheSocketIsItsOwnersAlone(t *testing.T) {
	_, path := serve(t, &loop{})
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

// planted is what may stand in the socket's place.
var planted = map[string]func(t *testing.T, path string) error{
	"a socket that nobody answers on": func(t *testing.T, path string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err == nil {
			l.SetUnlinkOnClose(false) // as a SIGKILL leaves it
			l.Close()
		}
		return err
	},
	"a socket that somebody answers on": func(t *testing.T, path string) error {
		l, err := net.Listen("unix", path)
		if err == nil {
			t.Cleanup(func() { l.Close() })
		}
		return err
	},
	"a file":                   func(_ *testing.T, path string) error { return os.WriteFile(path, []byte("planted"), 0o600) },
	"a fifo":                   func(_ *testing.T, path string) error { return unix.Mkfifo(path, 0o600) },
	"a link to nowhere":        func(_ *testing.T, path string) error { return os.Symlink("nowhere", path) },
	"a link to itself":         func(_ *testing.T, path string) error { return os.Symlink(path, path) },
	"a link to a directory":    func(_ *testing.T, path string) error { return os.Symlink("/", path) },
	"an empty directory":       func(_ *testing.T, path string) error { return os.Mkdir(path, 0) },
	"a directory and its tree": func(_ *testing.T, path string) error { return os.MkdirAll(filepath.Join(path, "a", "b"), 0o700) },
}

// Nobody but the owner writes in the directory, and the caller has locked it, so what stands there was left or planted.
func TestWhateverStandsInItsPlaceGivesWay(t *testing.T) {
	for what, plant := range planted {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "agent.sock")
			if err := plant(t, path); err != nil {
				t.Fatal(err)
			}
			serveAt(t, &loop{}, path)
			eventually(t, "the socket is there", func() bool { return isSocketOf(path) })
			isAlone(t, path)
		})
	}
}

func TestASocketThatIsReplacedIsBackWithinASecond(t *testing.T) {
	paths := map[string]string{}
	for what := range planted {
		_, paths[what] = serve(t, &loop{})
	}
	<-time.After(apart + 100*time.Millisecond) // since they were made
	for _, path := range paths {
		slowtest.Dial(t, "unix", path, "POST /refresh HT") // a request under way is a reason to wait, but not for long
	}
	for what, plant := range planted {
		if err := errors.Join(os.Remove(paths[what]), plant(t, paths[what])); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	clock := lagtest.Start(t)
	for what, path := range paths {
		eventually(t, "the socket is back that was replaced by "+what, func() bool { return isSocketOf(path) })
	}
	if took := clock.Took(); took > time.Second {
		t.Errorf("the sockets were back after %v", took)
	}
	for _, path := range paths {
		isAlone(t, path)
	}
}

// isSocketOf reports whether a server of this package answers at path.
func isSocketOf(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	client := over(path)
	client.Timeout = 100 * time.Millisecond
	response, err := client.Get("http://agent/status")
	if err != nil {
		return false
	}
	response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// isAlone wants a socket of the owner's at path, and nothing beside it.
func isAlone(t *testing.T, path string) {
	t.Helper()
	if info, err := os.Lstat(path); err != nil {
		t.Error(err)
	} else if info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("it is %v", info.Mode())
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("in the directory are %v, %v", left, err)
	}
}

// Somebody who takes it away again and again doesn't fill the log.
func TestASocketIsMadeAtMostOnceASecond(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	said := make(lines, 100)
	s := New(&loop{}, slog.New(slog.NewTextHandler(said, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	began := time.Now()
	go func() { ended <- s.Serve(ctx, path, locked) }()
	const times = 3
	eventually(t, "it is said that often that the socket was taken away", func() bool {
		os.Remove(path)
		return len(said) >= times
	})
	if took := time.Since(began); took < (times-1)*time.Second {
		t.Errorf("in %v there were %d lines", took, times)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

const nobody = 65534

// Root may open any socket, so the peer is another process that gave root up after it was let in by the file's mode.
func TestAPeerOfAnotherUserIsRefused(t *testing.T) {
	if path := os.Getenv("CONTROL_TEST_SOCKET"); path != "" {
		callAsAnother(path)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("starting a process of another uid needs root")
	}
	s, path := serve(t, &loop{})
	for dir := filepath.Dir(path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(path, 0o666); err != nil { // as if the modes had been loosened: the uid still decides
		t.Fatal(err)
	}
	binary := filepath.Join(filepath.Dir(path), "test")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, content, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestAPeerOfAnotherUserIsRefused$")
	cmd.Env = []string{"CONTROL_TEST_SOCKET=" + path}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.Output()
	if err != nil || !bytes.HasPrefix(out, []byte("connected, then EOF")) {
		t.Errorf("the peer says %q, %v", out, err)
	}
	eventually(t, "the refusal is counted", func() bool { return s.RefusedPeers() == 1 })
	if status, _ := ask(t, path, "GET", "/status", ""); status != 200 {
		t.Errorf("the owner isn't answered any more: HTTP %d", status)
	}
}

// callAsAnother asks for the status and prints what came of it.
func callAsAnother(path string) {
	c, err := net.Dial("unix", path)
	if err != nil {
		os.Stdout.WriteString("not connected: " + err.Error())
		return
	}
	defer c.Close()
	io.WriteString(c, "GET /status HTTP/1.1\r\nHost: agent\r\n\r\n")
	answer, err := io.ReadAll(c)
	if len(answer) == 0 && (err == nil || errors.Is(err, syscall.ECONNRESET)) {
		os.Stdout.WriteString("connected, then EOF\n")
		return
	}
	os.Stdout.WriteString("answered: " + string(answer))
}

// The directory may go, and it takes whoever renders to it a moment to make it anew: no reason to end. Until that one has
// locked it, it may be another agent's.
func TestTheSocketFollowsItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	path := filepath.Join(dir, "agent.sock")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	said := make(lines, 100)
	s := New(&loop{}, slog.New(slog.NewTextHandler(said, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	looked, locked := make(chan struct{}), make(chan struct{})
	var replaced atomic.Bool
	look := func() bool {
		if !replaced.Load() {
			return true
		}
		select {
		case looked <- struct{}{}:
			return false
		case <-locked:
			return true
		case <-ctx.Done():
			return false
		}
	}
	go func() { ended <- s.Serve(ctx, path, look) }()
	eventually(t, "somebody answers", func() bool { return answers(path) })
	replaced.Store(true)
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		select {
		case <-looked:
		case err := <-ended:
			t.Fatalf("the server ended with its directory: %v", err)
		case <-time.After(10 * time.Second):
			t.Fatal("it doesn't look any more whether the directory is locked")
		}
	}
	if answers(path) {
		t.Error("there is a socket in a directory that isn't locked")
	}
	close(locked)
	eventually(t, "somebody answers in the new directory", func() bool { return answers(path) })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := len(said); n != 1 {
		t.Errorf("%d lines are said of one change", n)
	}
}

// A place where no socket can be made is said once, at the start as later, and is no reason to end.
func TestAPlaceThatCannotBeHadIsNamedOnce(t *testing.T) {
	makeDir := func(path string) error { return os.Mkdir(filepath.Dir(path), 0o700) }
	for what, c := range map[string]struct {
		name   string
		before func(path string) error
		later  func(path string) error // once somebody answers
	}{
		"its directory goes":                    {"agent.sock", makeDir, func(path string) error { return os.RemoveAll(filepath.Dir(path)) }},
		"its directory is missing at the start": {"agent.sock", nil, nil},
		"what stands there can't be moved aside": { // to a name that is too long, and another each time
			strings.Repeat("s", 230), func(path string) error { return os.MkdirAll(filepath.Join(path, "planted"), 0o700) }, nil},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "keys", c.name)
			try(t, path, c.before)
			said, tries, ended := make(lines, 100), make(chan bool, 100), make(chan error, 1)
			s := New(&loop{}, slog.New(slog.NewTextHandler(said, nil)))
			ctx, cancel := context.WithCancel(t.Context())
			go func() { ended <- s.Serve(ctx, path, func() bool { tries <- true; return true }) }()
			if c.later != nil {
				eventually(t, "somebody answers", func() bool { return answers(path) })
				try(t, path, c.later)
			}
			for range 4 {
				select {
				case <-tries:
				case err := <-ended:
					t.Fatalf("the server ended: %v", err)
				}
			}
			if c.name == "agent.sock" {
				try(t, path, makeDir)
				eventually(t, "somebody answers in the new directory", func() bool { return answers(path) })
			}
			cancel()
			if err := <-ended; err != nil {
				t.Error(err)
			}
			if n := said.count("trying again"); n != 1 {
				t.Errorf("the failure is said %d times", n)
			}
		})
	}
}

// try does what is to be done at path, if anything is.
func try(t *testing.T, path string, do func(path string) error) {
	t.Helper()
	if do == nil {
		return
	}
	if err := do(path); err != nil {
		t.Fatal(err)
	}
}

// lines is a channel of log lines.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// count closes l and returns how many of its lines have part in them.
func (l lines) count(part string) (n int) {
	close(l)
	for line := range l {
		if strings.Contains(line, part) {
			n++
		}
	}
	return n
}
