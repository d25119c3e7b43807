package sink

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// memory returns a fresh 0700 directory on a tmpfs.
func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "keyturn-sink-")
	if err != nil {
		t.Fatalf("these tests need a tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func open(t testing.TB, path string) *Dir {
	t.Helper()
	d, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func render(t testing.TB, d *Dir, file, content string) secret.Identity {
	t.Helper()
	id, err := d.Render(file, secret.New([]byte(content)))
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// assertHolds checks the contract between the halves: exactly the bytes, 0600, and no other name beside it.
func assertHolds(t testing.TB, dir, file, content string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, file))
	if err != nil || string(b) != content {
		t.Errorf("%s holds %q, %v, want %q", file, b, err, content)
	}
	info, err := os.Lstat(filepath.Join(dir, file))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%s has mode %v, %v, want -rw-------", file, info.Mode(), err)
	}
	assertNothingTemporary(t, dir)
}

func assertNothingTemporary(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			t.Errorf("%s was left behind", e.Name())
		}
	}
}

func TestRenderReplacesWhateverThereIs(t *testing.T) {
	dir := memory(t)
	d := open(t, dir)
	last := secret.Identity{}
	for _, content := range []string{"one", "one", "longer than before"} {
		id := render(t, d, "key", content)
		assertHolds(t, dir, "key", content)
		if id.ModTime <= last.ModTime || id.Inode == last.Inode {
			t.Errorf("%q has the identity %v after %v", content, id, last)
		}
		last = id
	}
}

func TestRemove(t *testing.T) {
	dir := memory(t)
	d := open(t, dir)
	for what, plant := range map[string]func(path string) error{
		"the file": func(string) error { return nil },
		"a tree": func(path string) error {
			return errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700))
		},
		"a file in a directory that nobody may look into": func(string) error { return os.Chmod(dir, 0) },
	} {
		render(t, d, "key", "one")
		if err := plant(filepath.Join(dir, "key")); err != nil {
			t.Fatal(err)
		}
		if err := d.Remove("key", "never-was"); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("%s: %v is left, %v", what, entries, err)
		}
	}
}

// The clock may stand still or go backwards: an identity is still never used twice, not even by the next agent.
func TestModificationTimesOnlyGrow(t *testing.T) {
	dir := memory(t)
	d := open(t, dir)
	last := render(t, d, "key", "0")
	for i := range 1000 {
		id := render(t, d, "key", fmt.Sprint(i+1))
		if id.ModTime <= last.ModTime {
			t.Fatalf("render %d has time %d, not after %d", i, id.ModTime, last.ModTime)
		}
		last = id
	}
	if d.lastTime != d.lastTime.Round(0) {
		t.Error("times are compared by the monotonic clock, which doesn't see that the other one was set back")
	}
	future := unix.NsecToTimespec(last.ModTime + math.MaxInt32*int64(1e9))
	if err := unix.UtimesNanoAt(unix.AT_FDCWD, filepath.Join(dir, "key"), []unix.Timespec{future, future}, 0); err != nil {
		t.Fatal(err)
	}
	d.Close()
	next := open(t, dir)
	if _, _, err := next.Adopt("key"); err != nil {
		t.Fatal(err)
	}
	if id := render(t, next, "key", "after"); id.ModTime <= unix.TimespecToNsec(future) {
		t.Error("the next agent went back in time")
	}
}

func TestAdoptTakesOnlyWhatARenderLeaves(t *testing.T) {
	dir := memory(t)
	d := open(t, dir)
	if _, _, err := d.Adopt("key"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing file: %v, want fs.ErrNotExist", err)
	}
	want := render(t, d, "key", "good")
	v, id, err := d.Adopt("key")
	if err != nil || string(v.Reveal()) != "good" || id != want {
		t.Errorf("Adopt: %q %v %v, want good %v", v.Reveal(), id, err, want)
	}
	path := filepath.Join(dir, "key")
	for what, spoil := range map[string]func() error{
		"a looser mode": func() error { return os.Chmod(path, 0o640) },
		"a second name": func() error { return os.Link(path, filepath.Join(dir, "other")) },
		"a link":        func() error { return errors.Join(os.Remove(path), os.Symlink("other", path)) },
		"a directory":   func() error { return errors.Join(os.Remove(path), os.Mkdir(path, 0o700)) },
		"nothing":       func() error { return os.Truncate(path, 0) },
		"a megabyte":    func() error { return os.Truncate(path, 1<<20) },
		"a pipe":        func() error { return errors.Join(os.Remove(path), unix.Mkfifo(path, 0o600)) },
	} {
		t.Run(what, func(t *testing.T) {
			if err := spoil(); err != nil {
				t.Fatal(err)
			}
			if v, _, err := d.Adopt("key"); err == nil {
				t.Errorf("took over %q from %s", v.Reveal(), what)
			}
			render(t, d, "key", "good")
			assertHolds(t, dir, "key", "good")
		})
	}
}

func TestOpenSweepsWhatAKilledAgentLeft(t *testing.T) {
	dir := memory(t)
	for _, name := range []string{".key" + temporary + "AAAA", ".other.pem" + temporary + "B"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("half"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "key"), []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, ".planted"+temporary+"C", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	assertHolds(t, dir, "key", "whole")
}

// Every mistake that a person can make with the directory ends in a sentence that names the mend.
func TestOpenSaysHowToMend(t *testing.T) {
	parent := memory(t)
	file := filepath.Join(parent, "file")
	link := filepath.Join(parent, "link")
	loose := filepath.Join(parent, "loose")
	taken := filepath.Join(parent, "taken")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(parent, link), os.Mkdir(loose, 0o700), os.Chmod(loose, 0o750)); err != nil {
		t.Fatal(err)
	}
	open(t, taken)
	for _, c := range []struct{ what, path, want string }{
		{"a missing parent", filepath.Join(parent, "no", "such"), "make or mount that first"},
		{"a file", file, "is not a directory"},
		{"a link", link, "is not a directory"},
		{"a loose mode", loose, "chmod 0700 " + loose},
		{"a disk", t.TempDir(), "mount a tmpfs there"},
		{"another agent's", taken, "another agent renders to it: stop that one"},
	} {
		if c.what == "a disk" {
			os.Chmod(c.path, 0o700)
		}
		d, err := Open(c.path, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.path) && c.what != "a missing parent" {
			t.Errorf("%s: %v, want its path and %q", c.what, err, c.want)
		}
		if err == nil {
			d.Close()
		}
	}
	if _, err := Open(taken, Options{}); !errors.Is(err, ErrLocked) {
		t.Errorf("another agent's: %v, want ErrLocked", err)
	}
}

// A file system may have no locks. No other agent is looked for then.
func TestADirectoryThatCannotBeLockedIsNoOtherAgents(t *testing.T) {
	dir := memory(t)
	d := &Dir{path: dir}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_CLOEXEC, 0) // which flock(2) refuses
	if err != nil {
		t.Fatal(err)
	}
	lock := os.NewFile(uintptr(fd), dir)
	defer lock.Close()
	info, err := lock.Stat()
	if err != nil {
		t.Fatal(err)
	}
	err = d.check(&pin{lock: lock}, info)
	if err == nil || errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), dir+" can't be locked") {
		t.Errorf("%v, want that it can't be locked", err)
	}
}

func TestADiskIsTakenOnlyWhenAsked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	d, err := Open(dir, Options{AllowDisk: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	render(t, d, "key", "one")
	assertHolds(t, dir, "key", "one")
}

// A full tmpfs refuses the new bytes. The old ones stay, and nothing else does.
func TestAFailedWriteLeavesTheOldFile(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("mounting a small tmpfs needs root")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8k,mode=0700"); err != nil {
		t.Skipf("mounting a small tmpfs: %v", err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	d := open(t, dir)
	defer d.Close()
	render(t, d, "key", "old")
	if _, err := d.Render("key", secret.New([]byte(strings.Repeat("n", 9<<10)))); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("a write to a full tmpfs: %v, want ENOSPC", err)
	}
	assertHolds(t, dir, "key", "old")
	render(t, d, "key", "new")
	assertHolds(t, dir, "key", "new")
}

// Ten writers on ten files and a reader on each: whoever opens a file finds one whole value.
func TestNoReaderSeesHalf(t *testing.T) {
	const files, rounds = 10, 10
	dir := memory(t)
	d := open(t, dir)
	whole := map[string]bool{}
	for i := range 8 {
		whole[strings.Repeat(string(rune('a'+i)), 10+500*i)] = true
	}
	var writers, readers sync.WaitGroup
	var done atomic.Bool
	var reads atomic.Int64
	for i := range files {
		file := fmt.Sprintf("key-%d", i)
		render(t, d, file, strings.Repeat("a", 10))
		writers.Go(func() {
			for range rounds {
				for content := range whole {
					d.Render(file, secret.New([]byte(content)))
				}
			}
		})
		readers.Go(func() {
			for !done.Load() {
				b, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil || !whole[string(b)] {
					t.Errorf("read %d bytes, %v", len(b), err)
					return
				}
				reads.Add(1)
			}
		})
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
	if reads.Load() < files {
		t.Errorf("only %d reads", reads.Load())
	}
	assertNothingTemporary(t, dir)
}
