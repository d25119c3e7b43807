package sink

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/examples/lagtest"
)

const driftKey = "AQ.the-key-in-force"

var inForce = secret.New([]byte(driftKey))

func write(path, content string) error { return os.WriteFile(path, []byte(content), 0o600) }

// datedAsBefore does something to a file, and then sets its time to what it was.
func datedAsBefore(path string, do func() error) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	return errors.Join(do(), os.Chtimes(path, info.ModTime(), info.ModTime()))
}

// changes are what somebody may do to a rendered file, and what Drift says of it.
var changes = []struct {
	name, found string
	do          func(key string) error
}{
	{"content", "other content", func(key string) error { return write(key, "planted") }},
	{"content of the same size, dated as before", "other content", func(key string) error {
		return datedAsBefore(key, func() error { return write(key, strings.Repeat("x", len(driftKey))) })
	}},
	{"emptied", "other content", func(key string) error { return os.Truncate(key, 0) }},
	{"appended to, dated as before", "other content", func(key string) error {
		return datedAsBefore(key, func() error { return write(key, driftKey+"\n") })
	}},
	{"equal content", "a file that was touched", func(key string) error { return write(key, driftKey) }},
	{"touched", "a file that was touched", func(key string) error { return os.Chtimes(key, time.Now(), time.Now()) }},
	{"mode", "mode 0644", func(key string) error { return os.Chmod(key, 0o644) }},
	{"setuid", "mode 4600", func(key string) error { return unix.Chmod(key, 0o4600) }},
	{"no mode", "mode 0000", func(key string) error { return os.Chmod(key, 0) }},
	{"owner", "owner 65534", func(key string) error { return os.Chown(key, nobody, nobody) }},
	{"deleted", "no file", os.Remove},
	{"another file", "another file", func(key string) error {
		return errors.Join(write(key+"2", driftKey), os.Rename(key+"2", key))
	}},
	{"a second name", "a second name", func(key string) error { return os.Link(key, filepath.Join(key, "..", "..", "stolen")) }},
	{"a link", "a link", func(key string) error { return errors.Join(os.Remove(key), os.Symlink("/etc/hostname", key)) }},
	{"a link to another file", "a link", func(key string) error {
		return errors.Join(os.Rename(key, key+"2"), os.Symlink("key2", key))
	}},
	{"a pipe", "a pipe", func(key string) error { return errors.Join(os.Remove(key), unix.Mkfifo(key, 0o600)) }},
	{"a socket", "a socket", func(key string) error {
		return errors.Join(os.Remove(key), unix.Mknod(key, unix.S_IFSOCK|0o600, 0))
	}},
	{"a directory", "a directory", func(key string) error {
		return errors.Join(os.Remove(key), os.MkdirAll(filepath.Join(key, "deep"), 0o700))
	}},
}

func TestWhateverIsChangedIsFoundAndPutBack(t *testing.T) {
	for _, change := range changes {
		t.Run(change.name, func(t *testing.T) {
			if change.name == "owner" && os.Geteuid() != 0 {
				t.Skip("only root can give a file away")
			}
			dir := filepath.Join(memory(t), "keys")
			d := open(t, dir)
			first := render(t, d, "key", driftKey)
			if found := d.Drift("key", inForce, first); found != "" {
				t.Fatalf("nobody touched it, and it found %q", found)
			}
			if err := change.do(filepath.Join(dir, "key")); err != nil {
				t.Fatal(err)
			}
			if found := d.Drift("key", inForce, first); found != change.found {
				t.Errorf("found %q, want %q", found, change.found)
			}
			id := render(t, d, "key", driftKey)
			if found := d.Drift("key", inForce, id); found != "" {
				t.Errorf("after the repair it finds %q", found)
			}
			assertHolds(t, dir, "key", driftKey)
			if id == first {
				t.Error("a repaired file goes by the identity of the one before")
			}
		})
	}
}

func TestAFileThatWasNeverRenderedIsNone(t *testing.T) {
	d := open(t, memory(t))
	if found := d.Drift("key", inForce, secret.Identity{}); found != "no file" {
		t.Errorf("%q", found)
	}
}

// Who holds a lease on a file makes everybody wait who opens it, for 45 s by default (fcntl(2)).
func TestALeaseOnTheFileHoldsNobodyUp(t *testing.T) {
	dir := memory(t)
	d := open(t, dir)
	first := render(t, d, "key", driftKey)
	f, err := os.OpenFile(filepath.Join(dir, "key"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("no lease to be had: %v", err)
	}
	clock := lagtest.Start(t)
	if found := d.Drift("key", inForce, first); found != "a file that can't be opened" {
		t.Errorf("found %q", found)
	}
	if found := d.Drift("key", inForce, render(t, d, "key", driftKey)); found != "" {
		t.Errorf("after the repair it finds %q", found)
	}
	if took := clock.Took(); took > time.Second {
		t.Errorf("it took %v", took)
	}
}

// A pipe that takes the file's place between a look at it and its opening has nobody at its other end.
func TestAPipeThatIsSwappedInHoldsNobodyUp(t *testing.T) {
	dir := memory(t)
	d := open(t, dir)
	first := render(t, d, "key", driftKey)
	key, pipe := filepath.Join(dir, "key"), filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	stop, stopped, swaps := make(chan struct{}), make(chan struct{}), 0
	go func() {
		defer close(stopped)
		for ; ; swaps++ {
			select {
			case <-stop:
				return
			default:
				unix.Renameat2(unix.AT_FDCWD, key, unix.AT_FDCWD, pipe, unix.RENAME_EXCHANGE)
			}
		}
	}()
	looked := make(chan int)
	go func() {
		n := 0
		for began := time.Now(); time.Since(began) < 200*time.Millisecond; n++ {
			d.Drift("key", inForce, first)
			d.Adopt("key")
		}
		looked <- n
	}()
	select {
	case n := <-looked:
		t.Logf("%d looks", n)
	case <-time.After(10 * time.Second):
		t.Error("it waits for the pipe")
	}
	close(stop)
	<-stopped
	if swaps == 0 {
		t.Error("nothing was swapped")
	}
}

func BenchmarkDrift(b *testing.B) {
	d := open(b, memory(b))
	id := render(b, d, "key", driftKey)
	b.ReportAllocs()
	for b.Loop() {
		if d.Drift("key", inForce, id) != "" {
			b.Fatal("it was touched")
		}
	}
}

func BenchmarkMendNothing(b *testing.B) {
	d := open(b, memory(b))
	for b.Loop() {
		if found, err := d.Mend(); found != "" || err != nil {
			b.Fatal(found, err)
		}
	}
}
