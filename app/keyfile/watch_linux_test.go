package keyfile

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/examples/logtest"
)

func TestADirectoryThatDoesNotExistYet(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "a", "b", "key")
		c := consume(t, New(Config{Path: path, Tick: 5 * time.Millisecond}))
		if err := c.error(fs.ErrNotExist, path); !strings.Contains(err.Error(), filepath.Dir(path)+" is missing: mount it") {
			t.Errorf("%v; what is missing?", err)
		}
		must(t, os.MkdirAll(filepath.Dir(path), 0o700))
		if err := c.error(fs.ErrNotExist, path); !strings.Contains(err.Error(), "put the key there") {
			t.Errorf("%v; what is missing?", err)
		}
		render(t, path, "one")
		c.key("one")
	})
}

// A look, once it has found another directory at the path, is followed by that one's events.
func TestADirectoryThatIsReplacedIsWatchedAnew(t *testing.T) {
	for what, replace := range map[string]func(dir string) error{
		"moved away":   func(dir string) error { return os.Rename(dir, dir+"-old") },
		"deleted":      os.RemoveAll, // on a disk the next one may have its inode number
		"a link turns": func(dir string) error { return os.Remove(dir) },
	} {
		t.Run(what, func(t *testing.T) {
			places(t, func(t *testing.T, parent string) {
				dir := filepath.Join(parent, "keys")
				makeDir := func(name string) {
					if what != "a link turns" {
						must(t, os.Mkdir(dir, 0o700))
						return
					}
					must(t, os.Mkdir(dir+name, 0o700), os.Symlink(dir+name, dir))
				}
				path := filepath.Join(dir, "key")
				makeDir("0")
				render(t, path, "zero")
				w := New(Config{Path: path, Tick: never})
				c := consume(t, w)
				c.key("zero")
				for i := range 5 {
					must(t, replace(dir), os.RemoveAll(dir+"-old"))
					w.Check()
					c.error(fs.ErrNotExist, path)
					makeDir(fmt.Sprint(i + 1))
					render(t, path, fmt.Sprint("first-", i))
					w.Check() // as the tick would
					c.key(fmt.Sprint("first-", i))
					render(t, path, fmt.Sprint("second-", i)) // and this an event must tell
					c.key(fmt.Sprint("second-", i))
				}
			})
		})
	}
}

// A file system that uses the numbers of inodes again may give a directory that was made anew that of the old one, while nobody
// looked.
func TestADirectoryWithItsOldNumberIsWatchedAnew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	path := filepath.Join(dir, "key")
	must(t, os.Mkdir(dir, 0o700))
	render(t, path, "old")
	number := identityOf(t, dir).Inode
	keys := []string{}
	for reading, err := range New(Config{Path: path, Tick: never}).Keys(t.Context()) {
		must(t, err)
		keys = append(keys, reading.Key.Reveal())
		switch len(keys) {
		case 1:
			for attempt := 0; attempt == 0 || identityOf(t, dir).Inode != number; attempt++ {
				if attempt == 100 {
					t.Skip("NOT TESTED: this file system uses no number again")
				}
				must(t, os.RemoveAll(dir), os.Mkdir(dir, 0o700))
			}
			render(t, path, "new")
		case 2:
			render(t, path, "newer") // which an event must tell
		case 3:
			if !slices.Equal(keys, []string{"old", "new", "newer"}) {
				t.Errorf("%q came", keys)
			}
			return
		}
	}
}

func TestAMountOverTheDirectoryIsWatchedAnew(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	render(t, path, "below")
	w := New(Config{Path: path, Tick: never})
	c := consume(t, w)
	c.key("below")
	for _, content := range []string{"one", "two"} {
		if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
			t.Skipf("NOT TESTED, a mount isn't permitted here: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		render(t, path, content)
		w.Check()
		c.key(content)
		render(t, path, content+"-again")
		c.key(content + "-again")
		unmount(t, dir)
		w.Check()
		c.key("below")
	}
	c.stop()
}

// unmount waits until nothing keeps path busy, as a look does that is under way, and a watch must not.
func unmount(t *testing.T, path string) {
	t.Helper()
	poll := time.NewTicker(time.Millisecond)
	defer poll.Stop()
	for deadline := time.Now().Add(patience); ; <-poll.C {
		err := unix.Unmount(path, 0)
		if err == nil {
			return
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// A queue of events that overflows loses what it can't hold. That it did is an event, and the file is the truth.
func TestAnOverflowOfEventsLosesNoKey(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key")
	render(t, path, "old")
	w := New(Config{Path: path, Tick: never})
	var overflowed *fsnotify.Watcher
	w.notifier = func() (*fsnotify.Watcher, error) {
		var err error
		if overflowed, err = fsnotify.NewWatcher(); err != nil {
			return nil, err
		}
		// Nobody takes the events off overflowed before this returns.
		return overflowed, errors.Join(overflowed.Add(dir), flood(t, dir), os.Rename(prepare(t, path, "new"), path))
	}
	c := consume(t, w)
	c.key("new")
	render(t, path, "newer")
	c.key("newer")

	events := &fsnotify.Watcher{Events: make(chan fsnotify.Event), Errors: make(chan error)}
	woken := make(chan struct{}, 1)
	var forwarding sync.WaitGroup
	forwarding.Go(func() { forward(events, woken) })
	events.Errors <- fsnotify.ErrEventOverflow
	<-woken
	close(events.Errors)
	forwarding.Wait()
}

// flood raises more events than the queue of one inotify instance holds.
func flood(t *testing.T, dir string) error {
	b, err := os.ReadFile("/proc/sys/fs/inotify/max_queued_events")
	if err != nil {
		return err
	}
	var limit int
	if _, err := fmt.Sscan(string(b), &limit); err != nil || limit > 100_000 {
		t.Skipf("NOT TESTED, %d events would take too long (%v)", limit, err)
	}
	names := []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
	for _, name := range names {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			return err
		}
	}
	for i := range limit + 10_000 { // fsnotify's own buffer takes some thousands; equal neighbours would become one event
		if err := os.Chmod(names[i%2], 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Where inotify has no instance or no watch left, keys come by the tick, the log says so once, and inotify is asked again.
func TestWithoutInotifyKeysComeAndTheLogSaysSoOnce(t *testing.T) {
	for what, c := range map[string]struct {
		err  error
		mend string
	}{
		"no instance left": {fmt.Errorf("couldn't initialize inotify: %w", syscall.EMFILE), "fs.inotify.max_user_instances"},
		"no watch left":    {syscall.ENOSPC, "fs.inotify.max_user_watches"},
		"no permission":    {syscall.EACCES, "chown"},
	} {
		t.Run(what, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "key")
			var log lines
			var attempts atomic.Int64
			const failures = 5
			w := New(Config{Path: path, Tick: time.Millisecond, Log: log.logger()})
			w.notifier = func() (*fsnotify.Watcher, error) {
				if attempts.Add(1) <= failures {
					return nil, c.err
				}
				return fsnotify.NewWatcher()
			}
			keys := consume(t, w)
			keys.error(fs.ErrNotExist, path)
			render(t, path, "one")
			keys.key("one")
			for attempts.Load() <= failures {
				w.Check()
			}
			render(t, path, "two")
			keys.key("two")
			keys.stop()
			if got := log.lines(); len(got) != 2 || !strings.Contains(got[0], c.mend) || !strings.Contains(got[0], filepath.Dir(path)) ||
				!strings.Contains(got[1], "watched again") {
				t.Errorf("the log says:\n%s", strings.Join(got, "\n"))
			}
			if attempts.Load() != failures+1 {
				t.Errorf("inotify was asked %d times, want %d", attempts.Load(), failures+1)
			}
		})
	}
}

// lines is a log that a test may read while it is written to.
type lines struct{ logtest.Page }

func (l *lines) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *lines) lines() []string { return strings.Split(strings.TrimSpace(l.String()), "\n") }
