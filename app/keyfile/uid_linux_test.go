package keyfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// another is a uid and a gid that nothing else on a machine uses: what inotify allows is counted by uid.
const another = 61_234

// As root every permission check passes, so these stories run in a process of another uid.
func TestPermissionsAsAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("NOT TESTED: starting a process of another uid needs root")
	}
	parent := memory(t)
	must(t, os.Chmod(parent, 0o755))
	for name, of := range map[string]struct {
		uid, gid int
		mode     fs.FileMode
	}{
		"ours":            {another, another, 0o600},
		"root's":          {0, 0, 0o600},
		"root's, group":   {0, another, 0o440},
		"root's, loose":   {0, 0, 0o604},
		"theirs, legible": {another + 1, another, 0o640},
		"theirs":          {another + 1, another + 1, 0o600},
	} {
		path := filepath.Join(parent, name)
		render(t, path, canary)
		must(t, os.Chown(path, of.uid, of.gid), os.Chmod(path, of.mode))
	}
	dir := filepath.Join(parent, "dir")
	must(t, os.Mkdir(dir, 0o700), os.Chown(dir, another, another))
	binary := filepath.Join(parent, "test")
	self, err := os.Executable()
	must(t, err)
	b, err := os.ReadFile(self)
	must(t, err, os.WriteFile(binary, b, 0o755), os.Chmod(binary, 0o755))

	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run=^TestAsAnother$", "-test.v")
	cmd.Env = []string{"KEYFILE_TEST_DIR=" + parent}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: another, Gid: another}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestAsAnother") {
		t.Errorf("as uid %d: %v\n%s", another, err, out)
	}
	t.Logf("%s", out)

	// And root itself takes no file of a user who could change or read it.
	if _, err := New(Config{Path: filepath.Join(parent, "ours")}).Read(); !errors.Is(err, ErrOwner) || !strings.Contains(err.Error(), "chown 0 ") {
		t.Errorf("root reads another's file: %v", err)
	}
}

// TestAsAnother is the body of TestPermissionsAsAnotherUser.
func TestAsAnother(t *testing.T) {
	parent := os.Getenv("KEYFILE_TEST_DIR")
	if parent == "" {
		t.Skip("TestPermissionsAsAnotherUser runs this")
	}
	t.Run("owners", func(t *testing.T) { testOwners(t, parent) })
	t.Run("modes", func(t *testing.T) { testUnreadable(t, filepath.Join(parent, "dir")) })
	t.Run("inotify", func(t *testing.T) { testExhaustion(t, filepath.Join(parent, "dir")) })
}

func testOwners(t *testing.T, parent string) {
	for name, c := range map[string]struct {
		group bool
		want  error
		mend  string
	}{
		"ours":            {false, nil, ""},
		"root's":          {false, fs.ErrPermission, fmt.Sprintf("uid %d may not", another)},
		"root's, group":   {true, nil, ""}, // a Kubernetes Secret volume with an fsGroup
		"root's, loose":   {true, ErrMode, "chmod 0640"},
		"theirs, legible": {true, ErrOwner, fmt.Sprintf("chown %d", another)},
		"theirs":          {false, fs.ErrPermission, "chown"},
	} {
		path := filepath.Join(parent, name)
		reading, err := New(Config{Path: path, AllowGroup: c.group}).Read()
		if !errors.Is(err, c.want) || err == nil && reading.Key.Reveal() != canary {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
		if err != nil && (!strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), c.mend)) {
			t.Errorf("%s: %v; want its path and %q", name, err, c.mend)
		}
	}
	if _, err := New(Config{Path: filepath.Join(parent, "root's, group")}).Read(); !errors.Is(err, ErrMode) {
		t.Errorf("the group was not allowed: %v", err)
	}
}

func testUnreadable(t *testing.T, dir string) {
	path := filepath.Join(dir, "key")
	render(t, path, "one")
	var log lines
	w := New(Config{Path: path, Tick: 5 * time.Millisecond, Log: log.logger()})
	c := consume(t, w)
	c.key("one")
	must(t, os.Chmod(path, 0))
	c.error(fs.ErrPermission, path)
	must(t, os.Chmod(path, 0o600))
	c.key("one")
	must(t, os.Chmod(dir, 0))
	c.error(fs.ErrPermission, path)
	must(t, os.Chmod(dir, 0o700))
	c.key("one")
	c.stop()

	must(t, os.Chmod(dir, 0o300)) // what can't be listed can't be watched
	c = consume(t, w)
	c.key("one")
	render(t, path, "two")
	c.key("two")
	must(t, os.Chmod(dir, 0o700))
	c.stop()
	if got := log.lines(); len(got) != 1 || !strings.Contains(got[0], "let the process list the directory") {
		t.Errorf("the log says:\n%s", strings.Join(got, "\n"))
	}
}

// testExhaustion takes every inotify instance that the uid may have.
func testExhaustion(t *testing.T, dir string) {
	var taken []int
	defer func() {
		for _, fd := range taken {
			unix.Close(fd)
		}
	}()
	for {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
		if errors.Is(err, unix.EMFILE) && len(taken) < 100_000 {
			break
		}
		must(t, err)
		taken = append(taken, fd)
	}
	path := filepath.Join(dir, "key")
	render(t, path, "one")
	var log lines
	w := New(Config{Path: path, Tick: 5 * time.Millisecond, Log: log.logger()})
	c := consume(t, w)
	c.key("one")
	render(t, path, "two")
	c.key("two")
	if got := log.lines(); len(got) != 1 || !strings.Contains(got[0], "fs.inotify.max_user_instances") {
		t.Errorf("the log says:\n%s", strings.Join(got, "\n"))
	}
	for _, fd := range taken {
		unix.Close(fd)
	}
	t.Logf("%d instances were taken", len(taken))
	taken = nil
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); len(log.lines()) < 2; <-poll.C {
		if time.Now().After(deadline) {
			t.Fatal("inotify was not asked again")
		}
	}
	render(t, path, "three")
	c.key("three")
	c.stop()
	if got := log.lines(); len(got) != 2 || !strings.Contains(got[1], "watched again") {
		t.Errorf("the log says:\n%s", strings.Join(got, "\n"))
	}
}
