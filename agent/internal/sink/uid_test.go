package sink

import (
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
	render(t, d, "key", "three") // ours to repair
	assertHolds(t, theirs, "key", "three")

	if err := os.Chmod(theirs, 0o500); err != nil {
		t.Fatal(err)
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
