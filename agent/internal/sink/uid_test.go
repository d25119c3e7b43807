package sink

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const nobody = 65534

// As root every permission check passes, so these stories run again, in a process of another uid.
func TestPermissionsAsAnotherUser(t *testing.T) {
	if os.Getenv("SINK_TEST_DIR") != "" {
		t.Skip("this is the other process")
	}
	if os.Geteuid() != 0 {
		t.Skip("starting a process of another uid needs root")
	}
	parent := memory(t)
	theirs, ours := filepath.Join(parent, "theirs"), filepath.Join(parent, "ours")
	for _, dir := range []string{theirs, ours} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(theirs, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(parent, "test")
	copyBinary(t, binary)
	cmd := exec.CommandContext(t.Context(), binary, "-test.run=^TestAsNobody$", "-test.v")
	cmd.Env = []string{"SINK_TEST_DIR=" + parent}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestAsNobody") {
		t.Errorf("as uid %d: %v\n%s", nobody, err, out)
	}
}

func copyBinary(t *testing.T, to string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, b, 0o755); err != nil {
		t.Fatal(err)
	}
}

// plantTree puts a tree at path that its owner can neither look into nor empty.
func plantTree(t *testing.T, path string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(path), os.MkdirAll(filepath.Join(path, "x", "y"), 0o700), os.Chmod(filepath.Join(path, "x"), 0), os.Chmod(path, 0)); err != nil {
		t.Fatal(err)
	}
}

func mend(t *testing.T, d *Dir, want string) {
	t.Helper()
	if found, err := d.Mend(); found != want || err != nil {
		t.Errorf("found %q, %v, want %q", found, err, want)
	}
}

// TestAsNobody is the body of TestPermissionsAsAnotherUser.
func TestAsNobody(t *testing.T) {
	parent := os.Getenv("SINK_TEST_DIR")
	if parent == "" {
		t.Skip("TestPermissionsAsAnotherUser runs this")
	}
	theirs := filepath.Join(parent, "theirs")
	d := open(t, theirs)
	for _, content := range []string{"one", "two"} {
		render(t, d, "key", content)
		assertHolds(t, theirs, "key", content)
	}
	if err := os.Chmod(theirs, 0o500); err != nil {
		t.Fatal(err)
	}
	mend(t, d, "mode 0500")
	render(t, d, "key", "three")
	assertHolds(t, theirs, "key", "three")

	plantTree(t, filepath.Join(theirs, "key"))
	render(t, d, "key", "four")
	if b, err := os.ReadFile(filepath.Join(theirs, "key")); err != nil || string(b) != "four" {
		t.Errorf("a tree that nobody may look into isn't replaced: %q, %v", b, err)
	}
	plantTree(t, filepath.Join(theirs, "key"))
	if err := os.Chmod(theirs, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove("key"); err != nil {
		t.Errorf("nor removed at the end: %v", err)
	}
	if _, err := os.Lstat(filepath.Join(theirs, "key")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nor removed at the end: %v", err)
	}
	d.Close()
	open(t, theirs).Close() // what can't be removed keeps no agent from starting

	deep := filepath.Join(theirs, "keys")
	d = open(t, deep)
	if err := errors.Join(os.Rename(deep, deep+".old"), os.Mkdir(deep, 0)); err != nil {
		t.Fatal(err)
	}
	mend(t, d, "another directory")
	render(t, d, "key", "five")
	if err := errors.Join(os.Rename(deep, deep+".older"), os.Symlink("keys.older", deep), os.Chmod(theirs, 0o500)); err != nil {
		t.Fatal(err)
	}
	if found, err := d.Mend(); found != "a link" || err == nil || !strings.Contains(err.Error(), deep+" is a link, and can't be removed: permission denied: make a directory in its place") ||
		!strings.Contains(err.Error(), "restart the agent") {
		t.Errorf("in a parent that it may not change: found %q, %v", found, err)
	}
	d.Close()
	for path, want := range map[string]string{
		filepath.Join(parent, "ours"):  "uid 65534",
		filepath.Join(parent, "fresh"): "can't be made",
		theirs:                         "is not writable",
		"/dev/shm":                     "owned by uid 0",
	} {
		if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}
