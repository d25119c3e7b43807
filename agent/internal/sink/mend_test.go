package sink

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The directory may be changed in any way; the next render is to one that is the agent's alone again.
func TestWhateverTheDirectoryBecomesItIsPutBack(t *testing.T) {
	moved := func(dir string, then func() error) error { return errors.Join(os.Rename(dir, dir+".old"), then()) }
	for _, c := range []struct {
		what, found string
		change      func(dir string) error
	}{
		{"others may look into it", "mode 0755", func(dir string) error { return os.Chmod(dir, 0o755) }},
		{"others may write in it", "mode 1777", func(dir string) error { return unix.Chmod(dir, 0o1777) }},
		{"nobody may look into it", "mode 0000", func(dir string) error { return os.Chmod(dir, 0) }},
		{"it is gone", "no directory", os.RemoveAll},
		{"it was moved", "no directory", func(dir string) error { return moved(dir, func() error { return nil }) }},
		{"it was made anew", "another directory", func(dir string) error {
			return moved(dir, func() error { return os.Mkdir(dir, 0o700) })
		}},
		{"it was made anew, for all", "another directory", func(dir string) error {
			return moved(dir, func() error { return errors.Join(os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755)) })
		}},
		{"it was made anew, for none", "another directory", func(dir string) error {
			return moved(dir, func() error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0)) })
		}},
		{"something was planted in a new one", "another directory", func(dir string) error {
			return moved(dir, func() error { return os.MkdirAll(filepath.Join(dir, ".a"+temporary+"b", "c"), 0o700) })
		}},
		{"a link to it", "a link", func(dir string) error {
			return moved(dir, func() error { return os.Symlink(filepath.Base(dir)+".old", dir) })
		}},
		{"a link to nowhere", "a link", func(dir string) error {
			return moved(dir, func() error { return os.Symlink("nowhere", dir) })
		}},
		{"a file", "a file", func(dir string) error { return moved(dir, func() error { return write(dir, "") }) }},
		{"a pipe", "a pipe", func(dir string) error { return moved(dir, func() error { return unix.Mkfifo(dir, 0o600) }) }},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := filepath.Join(memory(t), "keys")
			d := open(t, dir)
			render(t, d, "key", "one")
			if found, err := d.Mend(); found != "" || err != nil || !d.InPlace() {
				t.Fatalf("nobody changed it, and it found %q, %v", found, err)
			}
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			if d.InPlace() {
				t.Error("it is said to be in place")
			}
			before := descriptors(t)
			if found, err := d.Mend(); found != c.found || err != nil {
				t.Errorf("found %q, %v, want %q", found, err, c.found)
			}
			if after := descriptors(t); after != before {
				t.Errorf("%d descriptors became %d", before, after)
			}
			if found, err := d.Mend(); found != "" || err != nil || !d.InPlace() {
				t.Errorf("after that it found %q, %v", found, err)
			}
			render(t, d, "key", "two")
			assertHolds(t, dir, "key", "two")
			if info, err := os.Lstat(dir); err != nil || permissions(info) != 0o700 {
				t.Errorf("the directory: %v, %v", info.Mode(), err)
			}
			if other, err := Open(dir, Options{}); !errors.Is(err, ErrLocked) {
				t.Errorf("another agent takes it: %v, %v", other, err)
			}
		})
	}
}

// A directory that was replaced gets no key before it is checked, wherever the path leads.
func TestNothingIsWrittenToADirectoryThatWasNotChecked(t *testing.T) {
	dir := filepath.Join(memory(t), "keys")
	d := open(t, dir)
	render(t, d, "key", "one")
	if err := errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o755)); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Render("key", inForce); err == nil || !strings.Contains(err.Error(), dir+" was replaced") {
		t.Errorf("a render: %v", err)
	}
	for _, at := range []string{dir, dir + ".old"} {
		if b, err := os.ReadFile(filepath.Join(at, "key")); err == nil && string(b) != "one" {
			t.Errorf("%s was written to", at)
		}
	}
}

// No attempt that fails leaves a descriptor behind, and with it a lock on a directory.
func TestWhatFailsLeavesNoDescriptor(t *testing.T) {
	parent := memory(t)
	dir, taken, loose := filepath.Join(parent, "keys"), filepath.Join(parent, "taken"), filepath.Join(parent, "loose")
	file := filepath.Join(parent, "file")
	if err := errors.Join(os.Mkdir(loose, 0o700), os.Chmod(loose, 0o755), write(file, "")); err != nil {
		t.Fatal(err)
	}
	open(t, taken)
	d := open(t, dir)
	id := render(t, d, "key", driftKey)
	if err := errors.Join(os.Mkdir(filepath.Join(dir, "tree"), 0o700), os.Symlink("key", filepath.Join(dir, "link")),
		write(filepath.Join(dir, "huge"), strings.Repeat("x", maxAdopted+1)), os.Link(file, filepath.Join(dir, "twice"))); err != nil {
		t.Fatal(err)
	}
	for what, try := range map[string]func() error{
		"another agent's":      func() error { _, err := Open(taken, Options{}); return err },
		"a loose directory":    func() error { _, err := Open(loose, Options{}); return err },
		"a file":               func() error { _, err := Open(file, Options{}); return err },
		"a disk":               func() error { _, err := Open(t.TempDir(), Options{}); return err },
		"adopting a tree":      func() error { _, _, err := d.Adopt("tree"); return err },
		"adopting a link":      func() error { _, _, err := d.Adopt("link"); return err },
		"adopting a lot":       func() error { _, _, err := d.Adopt("huge"); return err },
		"adopting two names":   func() error { _, _, err := d.Adopt("twice"); return err },
		"a look at other text": func() error { return errors.New(d.Drift("key", inForce, id) + d.Drift("huge", inForce, id)) },
		"a name that is too long": func() error {
			_, err := d.Render(strings.Repeat("x", 300), inForce)
			return err
		},
		"a directory that another agent took": func() error {
			if err := errors.Join(os.Rename(dir, dir+".old"), os.Rename(taken, dir)); err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := errors.Join(os.Rename(dir, taken), os.Rename(dir+".old", dir)); err != nil {
					t.Fatal(err)
				}
			}()
			_, err := d.Mend()
			if !errors.Is(err, ErrLocked) {
				t.Errorf("%v, want ErrLocked", err)
			}
			return err
		},
	} {
		before := descriptors(t)
		for range 3 {
			if err := try(); err == nil {
				t.Errorf("%s: no error", what)
			}
		}
		if after := descriptors(t); after != before {
			t.Errorf("%s: %d descriptors became %d", what, before, after)
		}
	}
}

// descriptors returns how many this process has.
func descriptors(t testing.TB) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// What is mounted over the file keeps it from being replaced. That is the same sentence however often it is tried.
func TestAFailedRenameNamesNoTemporaryFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	dir := memory(t)
	d := open(t, dir)
	render(t, d, "key", "one")
	key := filepath.Join(dir, "key")
	if err := unix.Mount(key, key, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("mounting a file: %v", err)
	}
	defer unix.Unmount(key, unix.MNT_DETACH)
	_, first := d.Render("key", inForce)
	_, second := d.Render("key", inForce)
	if first == nil || second == nil || first.Error() != second.Error() || strings.Contains(first.Error(), temporary) {
		t.Errorf("%v, and then %v", first, second)
	}
	if want := fmt.Sprintf("%s can't be written: device or resource busy", key); first.Error() != want {
		t.Errorf("it says %q, want %q", first, want)
	}
	assertNothingTemporary(t, dir)
	if err := d.Remove("key"); err == nil || strings.Contains(err.Error(), temporary) {
		t.Errorf("Remove: %v", err)
	}
}

// A pipe that takes the directory's place between a look at it and its opening has nobody at its other end.
func TestAPipeInTheDirectorysPlaceHoldsNobodyUp(t *testing.T) {
	path := filepath.Join(memory(t), "keys")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { _, err := os.OpenRoot(path + "/"); done <- err }()
	select {
	case err := <-done:
		if err == nil {
			t.Error("a pipe was opened")
		}
	case <-time.After(10 * time.Second):
		t.Error("it waits for the pipe")
	}
}
