package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
)

// memory returns a directory on a tmpfs that everybody may enter, and that is removed with the test.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "keyturn-e2e-")
	if err != nil {
		t.Fatalf("these tests need a tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// file writes content to a new file that only its owner may read, and returns its path.
func file(t testing.TB, content string) string {
	t.Helper()
	dir := memory(t)
	path := filepath.Join(dir, "file")
	rewrite(t, path, content)
	return path
}

func rewrite(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// holds reports whether the file at path has exactly that content.
func holds(path, content string) bool {
	b, err := os.ReadFile(path)
	return err == nil && string(b) == content
}

// assertRendered checks the contract of a rendered file: exactly the value's bytes, mode 0600, in a directory of mode 0700.
func assertRendered(t testing.TB, path, value string) {
	t.Helper()
	if !holds(path, value) {
		t.Errorf("%s doesn't hold exactly the value", path)
	}
	for name, mode := range map[string]os.FileMode{path: 0o600, filepath.Dir(path): 0o700 | os.ModeDir} {
		if info, err := os.Lstat(name); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, mode %v, want %v", name, err, info, mode)
		}
	}
}

// links returns how many names a file has.
func links(info os.FileInfo) uint64 { return uint64(info.Sys().(*syscall.Stat_t).Nlink) }

// names returns what is in a directory, sorted.
func names(t testing.TB, dir string) []string {
	t.Helper()
	var all []string
	for _, e := range must[[]os.DirEntry](t)(os.ReadDir(dir)) {
		all = append(all, e.Name())
	}
	slices.Sort(all)
	return all
}
