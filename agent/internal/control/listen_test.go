package control

import (
	"bytes"
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
