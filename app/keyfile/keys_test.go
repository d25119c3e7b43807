package keyfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"go.uber.org/goleak"
)

func TestEachKeyComesOnceWithTheIdentityOfItsFile(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "key")
		first := render(t, path, "one")
		w := New(Config{Path: path, Tick: never})
		c := consume(t, w)
		if got := c.key("one"); got.Identity != first {
			t.Errorf("identity %v, want %v", got.Identity, first)
		}
		w.Check()
		second := render(t, path, "two")
		if got := c.key("two"); got.Identity != second {
			t.Errorf("identity %v, want %v", got.Identity, second)
		}
		again := render(t, path, "two") // a repair
		if got := c.key("two"); got.Identity != again || again == second {
			t.Errorf("identity %v, want %v, not %v", got.Identity, again, second)
		}
		c.stop()
		c.nothing()
	})
}

func TestAnotherConsumerBeginsAnew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	render(t, path, "one")
	w := New(Config{Path: path, Tick: never})
	keys := w.Keys(t.Context())
	for range 2 {
		for reading, err := range keys {
			if err != nil || reading.Key.Reveal() != "one" {
				t.Errorf("%v, %v", reading, err)
			}
			break
		}
	}
}

// A consumer that takes its time finds the newest key when it comes back, not each of those that were.
func TestASlowConsumerGetsTheNewestKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	render(t, path, "first")
	seen := 0
	for reading, err := range New(Config{Path: path, Tick: never}).Keys(t.Context()) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if reading.Key.Reveal() == "last" {
			break
		}
		for range 50 {
			render(t, path, "between")
		}
		render(t, path, "last")
	}
	if seen != 2 {
		t.Errorf("%d keys came, want the first and the last", seen)
	}
}

func TestAKeyThatIsGoneComesBack(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "key")
		c := consume(t, New(Config{Path: path, Tick: never}))
		c.error(fs.ErrNotExist, path)
		for _, content := range []string{"one", "two", "two"} {
			render(t, path, content)
			c.key(content)
			must(t, os.Remove(path))
			c.error(fs.ErrNotExist, path)
		}
		must(t, os.Rename(prepare(t, path, "moved"), path+"-elsewhere"), os.Symlink("key-elsewhere", path))
		c.key("moved")
	})
}

// A reason is yielded once, however often the file is looked at, and so is that it is gone.
func TestAReasonIsSaidOnceAndThatItIsGoneAsWell(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	w := New(Config{Path: path, Tick: time.Millisecond})
	c := consume(t, w)
	lookAgain := func() {
		t.Helper()
		for range 5 {
			w.Check()
		}
	}
	c.error(fs.ErrNotExist, path)
	lookAgain()
	good := render(t, path, "good")
	c.key("good")
	must(t, os.Chmod(path, 0o640))
	c.error(ErrMode, path)
	lookAgain()
	must(t, os.Chmod(path, 0o644))
	if err := c.error(ErrMode, path); !strings.Contains(err.Error(), "0644") {
		t.Errorf("another mode is another reason, but this came: %v", err)
	}
	must(t, os.Chmod(path, 0o600))
	if got := c.key("good"); got.Identity != good { // the same file, so that the consumer knows that all is well
		t.Errorf("identity %v, want %v", got.Identity, good)
	}
	lookAgain()
	render(t, path, "")
	c.error(ErrEmpty, path)
	render(t, path, "") // another file, the same reason
	render(t, path, "bad key")
	c.error(ErrNoHeader, path)
	c.stop()
	c.nothing()
}

// What is mended within 60 ms was never wrong: kubelet, editors and scripts all take files away for an instant.
func TestAMomentWithoutAKeyMakesNoNoise(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	render(t, path, "one")
	c := consume(t, New(Config{Path: path, Tick: never}))
	c.key("one")
	for attempt := 1; ; attempt++ {
		next := prepare(t, path, "two")
		start := time.Now()
		must(t, os.Remove(path), os.Mkdir(path, 0o700), os.Remove(path), os.Rename(next, path))
		inTime := time.Since(start) < settle/2
		i := c.next()
		if i.err == nil && i.Key.Reveal() == "two" {
			return
		}
		if inTime || attempt == 10 {
			t.Fatalf("%v; want key two", i)
		}
		c.key("two")
		render(t, path, "one")
		c.key("one")
	}
}

func TestCheckLooksAtOnceAndNeverBlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	w := New(Config{Path: path, Tick: never})
	w.notifier = func() (*fsnotify.Watcher, error) { return nil, errors.New("no inotify") }
	for range 1000 {
		w.Check() // nobody listens
	}
	render(t, path, "0")
	c := consume(t, w)
	c.key("0")
	for _, content := range []string{"1", "2", "3"} {
		render(t, path, content)
		w.Check()
		c.key(content)
	}
	c.stop()
	w.Check()
}

func TestWithoutInotifyTheTickFindsTheKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	w := New(Config{Path: path, Tick: 5 * time.Millisecond})
	w.notifier = func() (*fsnotify.Watcher, error) { return nil, errors.New("no inotify") }
	c := consume(t, w)
	c.error(fs.ErrNotExist, path)
	for _, content := range []string{"one", "two"} {
		render(t, path, content)
		c.key(content)
	}
}

// A link's target in another directory raises no event in ours: that takes the tick.
func TestATargetElsewhereIsFoundByTheTick(t *testing.T) {
	target := filepath.Join(t.TempDir(), "target")
	path := filepath.Join(t.TempDir(), "key")
	render(t, target, "one")
	must(t, os.Symlink(target, path))
	c := consume(t, New(Config{Path: path, Tick: 5 * time.Millisecond}))
	c.key("one")
	render(t, target, "two")
	c.key("two")
}

// However the loop ends, by then all that it started has ended.
func TestTheEndOfTheLoopIsTheEndOfEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	render(t, path, "one")
	before := goleak.IgnoreCurrent()
	files := openFiles(t)
	for range 50 {
		w := New(Config{Path: path})
		for range w.Keys(t.Context()) {
			break
		}
		var stacks [1 << 16]byte
		if running := stacks[:runtime.Stack(stacks[:], true)]; bytes.Contains(running, []byte("keyfile.forward(")) {
			t.Fatalf("it still runs:\n%s", running)
		}
		c := consume(t, w)
		c.key("one")
		c.stop()
		c.nothing()
	}
	if after := openFiles(t); after > files {
		t.Errorf("%d files were open, then %d", files, after)
	}
	goleak.VerifyNone(t, before)
}

func TestAContextThatHasEndedYieldsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	render(t, path, "one")
	c := consume(t, New(Config{Path: path}))
	c.key("one")
	c.stop()
	render(t, path, "two")
	c.nothing()
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("there is no /proc")
	}
	return len(entries)
}
