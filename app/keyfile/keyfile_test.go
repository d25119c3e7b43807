package keyfile

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// never is a tick that doesn't come: what is noticed was told by an event.
const never = time.Hour

// patience is how long a story waits for what must come.
const patience = 20 * time.Second

// places runs a story on a tmpfs and on a disk, which stamp files and number inodes differently.
func places(t *testing.T, story func(t *testing.T, dir string)) {
	t.Run("disk", func(t *testing.T) { story(t, t.TempDir()) })
	t.Run("tmpfs", func(t *testing.T) { story(t, memory(t)) })
}

func memory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "keyturn-keyfile-")
	if err != nil {
		t.Skipf("there is no tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// render puts content at path as the agent does.
func render(t testing.TB, path, content string) Identity {
	t.Helper()
	name := prepare(t, path, content)
	if err := os.Rename(name, path); err != nil {
		t.Fatal(err)
	}
	return identityOf(t, path)
}

// prepare does all of a render but the rename.
func prepare(t testing.TB, path, content string) string {
	t.Helper()
	f, err := os.CreateTemp(filepath.Dir(path), ".key.tmp-")
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString(content)
	stamp := time.Now()
	if err := errors.Join(err, f.Chmod(0o600), os.Chtimes(f.Name(), stamp, stamp), f.Close()); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

func identityOf(t testing.TB, path string) Identity {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return Identity{Inode: uint64(info.Sys().(*syscall.Stat_t).Ino), ModTime: info.ModTime().UnixNano()}
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// consumer ranges over Keys in a goroutine of its own and keeps what comes.
type consumer struct {
	testing.TB
	items chan item
	stop  func()
}

type item struct {
	Reading
	err error
	at  time.Time
}

func (i item) String() string {
	return fmt.Sprintf("key %q, %v, error %v", i.Key.Reveal(), i.Identity, i.err)
}

func consume(t testing.TB, w *Watcher) *consumer {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c := &consumer{TB: t, items: make(chan item, 1000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for reading, err := range w.Keys(ctx) {
			c.items <- item{reading, err, time.Now()}
		}
	}()
	c.stop = func() { cancel(); <-done }
	t.Cleanup(c.stop)
	return c
}

// next returns the next item, which must come.
func (c *consumer) next() item {
	c.Helper()
	select {
	case i := <-c.items:
		return i
	case <-time.After(patience):
		c.Fatal("nothing came")
		panic("unreachable")
	}
}

// key asserts that the next item is a reading of this key, and returns it.
func (c *consumer) key(want string) Reading {
	c.Helper()
	i := c.next()
	if i.err != nil || i.Key.Reveal() != want {
		c.Fatalf("%v; want key %q", i, want)
	}
	return i.Reading
}

// error asserts that the next item is an error of this kind, that it names the place, and that it holds no key.
func (c *consumer) error(kind error, place string) error {
	c.Helper()
	i := c.next()
	if !errors.Is(i.err, kind) || !strings.HasPrefix(i.err.Error(), place+": ") || !i.Key.IsZero() {
		c.Fatalf("%v; want an error that is %v at %s", i, kind, place)
	}
	return i.err
}

// nothing asserts that nothing has come so far. It is for after something else has come, or after a look that was awaited.
func (c *consumer) nothing() {
	c.Helper()
	select {
	case i := <-c.items:
		c.Fatalf("%v; want nothing", i)
	default:
	}
}
