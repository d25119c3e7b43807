package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// owner is the uid that agents run as in these tests, which root's power over permissions would spoil.
func owner() int {
	if os.Geteuid() == 0 {
		return nobody
	}
	return os.Geteuid()
}

func mkdir(t *testing.T, path string, mode os.FileMode) string {
	t.Helper()
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// onDisk returns a directory that isn't in memory.
func onDisk(t *testing.T) string {
	t.Helper()
	dir := must[string](t)(os.MkdirTemp("", "keyturn-e2e-disk-"))
	t.Cleanup(func() { os.RemoveAll(dir) })
	var s syscall.Statfs_t
	if err := syscall.Statfs(dir, &s); err != nil {
		t.Fatal(err)
	}
	if s.Type == unix.TMPFS_MAGIC {
		t.Skip("TMPDIR is itself a tmpfs")
	}
	return dir
}

// Each directory that can't do is refused before anything is read, with a sentence that names the mend.
func TestADirectoryThatCannotDoIsRefusedWithTheMend(t *testing.T) {
	parent := memory(t)
	readOnly := mkdir(t, filepath.Join(parent, "readonly"), 0o500)
	open := mkdir(t, filepath.Join(parent, "open"), 0o755)
	disk := onDisk(t)
	plain := filepath.Join(parent, "plain")
	rewrite(t, plain, "")
	link := filepath.Join(parent, "link")
	if err := os.Symlink(mkdir(t, filepath.Join(parent, "target"), 0o700), link); err != nil {
		t.Fatal(err)
	}
	give(t, readOnly, open, disk, plain, filepath.Join(parent, "target"))
	for _, c := range []struct{ what, dir, says string }{
		{"not there, nor its parent", filepath.Join(parent, "a", "b"), "since " + filepath.Join(parent, "a") + " is missing: make or mount that first"},
		{"a file", plain, "is not a directory"},
		{"a link", link, "is not a directory"},
		{"owned by someone else", "/dev/shm", fmt.Sprintf("is owned by uid 0, but the agent runs as %d: chown it, or name a subdirectory", owner())},
		{"not writable", readOnly, "is not writable"},
		{"open to others", open, "chmod 0700 " + open},
		{"not on a tmpfs", disk, "is not on a tmpfs, so the key would reach a disk: mount a tmpfs there"},
		{"missing where nothing may be made", filepath.Join(readOnly, "keys"), fmt.Sprintf("make it, mode 0700, owned by uid %d", owner())},
	} {
		t.Run(c.what, func(t *testing.T) {
			a := startAgent(t, c.dir, []string{"AGENT_TOKEN_FILE=/nonexistent"}, asNobody)
			if code := a.exit(t); code != 1 {
				t.Errorf("exit code %d, want 1", code)
			}
			if out := a.stderr.String(); !strings.Contains(out, c.says) || strings.Count(out, "\n") != 1 {
				t.Errorf("it says %q, want one line with %q", out, c.says)
			}
		})
	}
}

func TestADirectoryThatIsMissingIsMade(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	parent := memory(t)
	token := tokenFile(t, v, allow(t, v, unique(), secret))
	give(t, parent, token)
	environ := append(reach(v), "AGENT_TOKEN_FILE="+token, entries("key="+secret))
	a := startAgent(t, filepath.Join(parent, "keys"), environ, asNobody).started(t).ready(t)
	assertRendered(t, a.path("key"), value)
}

func TestADiskIsAllowedByName(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	environ := append(reach(v), "AGENT_TOKEN_FILE="+tokenFile(t, v, allow(t, v, unique(), secret)), entries("key="+secret), "AGENT_REQUIRE_TMPFS=false")
	a := startAgent(t, filepath.Join(onDisk(t), "keys"), environ).started(t).ready(t)
	assertRendered(t, a.path("key"), value)
}
