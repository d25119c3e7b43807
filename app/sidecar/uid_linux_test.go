package sidecar_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/sidecar"
)

const nobody = 65534

// asNobody starts the test of that name in a process of another uid, in a directory that is its own.
func asNobody(t *testing.T, test string) (dir string, cmd *exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("starting a process of another uid needs root")
	}
	dir = filepath.Dir(socketPath(t))
	if err := os.Chmod(dir, 0o711); err != nil { // it may pass, and root is still the one who makes files
		t.Fatal(err)
	}
	theirs := filepath.Join(dir, "theirs")
	if err := os.Mkdir(theirs, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(theirs, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "test")
	if err := os.WriteFile(binary, self, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd = exec.CommandContext(t.Context(), binary, "-test.run=^"+test+"$", "-test.v")
	cmd.Env = []string{"SIDECAR_TEST_DIR=" + dir}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	cmd.WaitDelay = 10 * time.Second
	return dir, cmd
}

// dirOfNobody returns the directory in the other process, and skips the test in this one.
func dirOfNobody(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("SIDECAR_TEST_DIR")
	if dir == "" {
		t.Skip("another test runs this in another process")
	}
	return dir
}

// root may connect to whatever it likes, so only the peer's uid tells that this is no agent of its own.
func TestAListenerOfAnotherUidHearsNothing(t *testing.T) {
	dir, cmd := asNobody(t, "TestListenAsNobody")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !said(lines, "listening") {
		t.Fatalf("it never listened: %v", cmd.Wait())
	}
	socket := filepath.Join(dir, "theirs", "agent.sock")
	both(t, sidecar.New(socket, keyFile), func(t *testing.T, err error) {
		wantSaid(t, err, socket, "uid 65534", "runs as 0", "as the same user")
		if errors.Is(err, sidecar.ErrReplaced) {
			t.Error("it was taken for an agent")
		}
	})
	heard := said(lines, "heard 0 bytes of 2 connections")
	if err := cmd.Wait(); err != nil || !heard {
		t.Errorf("the other process: %v; it heard nothing: %v", err, heard)
	}
}

func said(lines *bufio.Scanner, want string) bool {
	for lines.Scan() {
		if strings.Contains(lines.Text(), want) {
			return true
		}
	}
	return false
}

// TestListenAsNobody is the other process of TestAListenerOfAnotherUidHearsNothing.
func TestListenAsNobody(t *testing.T) {
	l := listen(t, filepath.Join(dirOfNobody(t), "theirs", "agent.sock"))
	fmt.Println("listening")
	var total int64
	for range 2 {
		c, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, c)
		c.Close()
		if total += n; err != nil {
			t.Error(err)
		}
	}
	fmt.Printf("heard %d bytes of 2 connections\n", total)
}

func TestASocketThatThisUserMayNotUse(t *testing.T) {
	dir, cmd := asNobody(t, "TestAskAsNobody")
	for _, socket := range []struct {
		name string
		mode os.FileMode
	}{{"closed.sock", 0o600}, {"open.sock", 0o666}} {
		path := filepath.Join(dir, socket.name)
		raw(t, path, func(c net.Conn) {
			if n, err := io.Copy(io.Discard, c); n > 0 || err != nil {
				t.Errorf("%s heard %d bytes, %v", socket.name, n, err)
			}
		})
		if err := os.Chmod(path, socket.mode); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestAskAsNobody") {
		t.Errorf("as uid %d: %v\n%s", nobody, err, out)
	}
}

// TestAskAsNobody is the other process of TestASocketThatThisUserMayNotUse.
func TestAskAsNobody(t *testing.T) {
	dir := dirOfNobody(t)
	closed, open := filepath.Join(dir, "closed.sock"), filepath.Join(dir, "open.sock")
	both(t, sidecar.New(closed, keyFile), func(t *testing.T, err error) { wantSaid(t, err, closed, "uid 65534", "may not", "as the same user") })
	both(t, sidecar.New(open, keyFile), func(t *testing.T, err error) { wantSaid(t, err, open, "uid 0", "runs as 65534") })
}
