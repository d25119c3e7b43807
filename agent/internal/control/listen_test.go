package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTheSocketIsItsOwnersAlone(t *testing.T) {
	_, path := serve(t, &loop{})
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestAStaleSocketIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false) // as a SIGKILL leaves it
	l.Close()
	serveAt(t, &loop{}, path)
}

func TestALiveSocketIsNotReplaced(t *testing.T) {
	_, path := serve(t, &loop{})
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	err = New(&loop{}, slog.New(slog.DiscardHandler)).Serve(t.Context(), path)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), "AGENT_DIR") {
		t.Errorf("%v", err)
	}
	if after, err := os.Lstat(path); err != nil || !os.SameFile(before, after) {
		t.Errorf("the live socket was touched: %v", err)
	}
}

// Nobody but the owner writes in the directory, so what stands there and doesn't answer was left or planted.
func TestAFileInItsPlaceIsReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	if err := os.WriteFile(path, []byte("planted"), 0o600); err != nil {
		t.Fatal(err)
	}
	serveAt(t, &loop{}, path)
}

// Whoever replaces the directory, or tidies up too much, takes the socket away.
func TestASocketThatIsTakenAwayIsMadeAnew(t *testing.T) {
	_, path := serve(t, &loop{})
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the socket is back", func() bool { return answers(path) })
	if status, _ := ask(t, path, "GET", "/status", ""); status != 200 {
		t.Errorf("HTTP %d", status)
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

// A process that is too busy to let anybody else in refuses otherwise than one that is dead.
func TestABusySocketIsNotReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	for full := false; !full; {
		c, err := net.Dial("unix", path)
		if full = err != nil; !full {
			defer c.Close()
		}
	}
	if err := New(&loop{}, slog.New(slog.DiscardHandler)).Serve(t.Context(), path); !errors.Is(err, ErrInUse) {
		t.Errorf("%v", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the busy socket was removed: %v", err)
	}
}

// The directory may go, and it takes whoever renders to it a moment to make it anew: no reason to end.
func TestTheSocketFollowsItsDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	path := filepath.Join(dir, "agent.sock")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	lines := make(lines, 100)
	s := New(&loop{}, slog.New(slog.NewTextHandler(lines, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(ctx, path) }()
	eventually(t, "somebody answers", func() bool { return answers(path) })
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	for tried := false; !tried; {
		select {
		case line := <-lines:
			tried = strings.Contains(line, "trying again")
		case err := <-ended:
			t.Fatalf("the server ended with its directory: %v", err)
		}
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	eventually(t, "somebody answers in the new directory", func() bool { return answers(path) })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	close(lines)
	for line := range lines {
		t.Errorf("said once more: %s", line)
	}
}

// lines is a channel of log lines.
type lines chan string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}
