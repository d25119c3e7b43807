package keyfile

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Whatever is put where the key was is refused with a sentence that names the place and the mend; the last good key stays, and
// the next good one is taken.
func TestARefusedFileLeavesTheLastGoodKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	put := func(content string, mode fs.FileMode) func() error {
		return func() error {
			return errors.Join(os.WriteFile(path, []byte(content), 0o600), os.Chmod(path, mode))
		}
	}
	link := func(to string) func() error { return func() error { return os.Symlink(to, path) } }
	for what, bad := range map[string]struct {
		put  func() error
		kind error
		mend string
	}{
		"others may read":        {put(canary, 0o604), ErrMode, "chmod 0600 " + path},
		"group may read":         {put(canary, 0o640), ErrMode, "chmod 0600 " + path},
		"group may write":        {put(canary, 0o620), ErrMode, "chmod 0600 " + path},
		"others may execute":     {put(canary, 0o601), ErrMode, "chmod 0600 " + path},
		"empty":                  {put("", 0o600), ErrEmpty, "write the key into it"},
		"a newline":              {put(canary+"\n", 0o600), ErrNewline, "printf %s"},
		"binary":                 {put(canary+"\x00\xff", 0o600), ErrNoHeader, "write the key alone"},
		"larger than 4 KiB":      {put(strings.Repeat("k", MaxSize+1), 0o600), ErrTooLong, "write the key alone"},
		"much larger than 4 KiB": {put(strings.Repeat("k", 16<<20), 0o600), ErrTooLong, "write the key alone"},
		"a directory":            {func() error { return os.Mkdir(path, 0o700) }, ErrNotRegular, "put a file there"},
		"a FIFO":                 {func() error { return unix.Mkfifo(path, 0o600) }, ErrNotRegular, "put a file there"},
		"a socket":               {func() error { return listen(t, path) }, ErrNotRegular, "put a file there"},
		"a device":               {link("/dev/zero"), ErrNotRegular, "put a file there"},
		"a link to nowhere":      {link("nowhere"), fs.ErrNotExist, "start the agent"},
		"a link to itself":       {link("key"), syscall.ELOOP, ""},
		"a link out of here":     {link("/etc/passwd"), ErrMode, "chmod 0600"},
	} {
		t.Run(what, func(t *testing.T) {
			must(t, os.RemoveAll(path))
			render(t, path, "good")
			w := New(Config{Path: path, Tick: never})
			c := consume(t, w)
			c.key("good")
			start := time.Now()
			must(t, os.Remove(path), bad.put())
			slow := time.Since(start) > settle/2
			i := c.next()
			for slow && !errors.Is(i.err, bad.kind) { // what was there before it was whole
				i = c.next()
			}
			if !errors.Is(i.err, bad.kind) || !i.Key.IsZero() {
				t.Fatalf("%v; want an error that is %v", i, bad.kind)
			}
			if text := i.err.Error(); !strings.HasPrefix(text, path+": ") || !strings.Contains(text, bad.mend) || strings.Contains(text, canary) {
				t.Errorf("%s; want the place and %q", text, bad.mend)
			}
			if reading, err := w.Read(); err == nil || err.Error() != i.err.Error() || !reading.Key.IsZero() {
				t.Errorf("Read: %v; want what Keys yielded", err)
			}
			must(t, os.RemoveAll(path))
			render(t, path, "better")
			if i = c.next(); errors.Is(i.err, fs.ErrNotExist) {
				i = c.next()
			}
			if i.Key.Reveal() != "better" {
				t.Errorf("%v; want key better", i)
			}
		})
	}
}

func listen(t *testing.T, path string) error {
	l, err := net.Listen("unix", path)
	if err == nil {
		t.Cleanup(func() { l.Close() })
	}
	return err
}

func TestTheGroupMayReadIfThatIsAllowed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	render(t, path, "key")
	w := New(Config{Path: path, AllowGroup: true})
	for mode, want := range map[fs.FileMode]error{
		0o400: nil, 0o600: nil, 0o700: nil, 0o440: nil, 0o640: nil,
		0o660: ErrMode, 0o650: ErrMode, 0o644: ErrMode, 0o604: ErrMode, 0o602: ErrMode,
	} {
		must(t, os.Chmod(path, mode))
		_, err := w.Read()
		if !errors.Is(err, want) {
			t.Errorf("mode %04o: %v, want %v", mode, err, want)
		}
		if want != nil && !strings.HasSuffix(err.Error(), "chmod 0640 "+path) {
			t.Errorf("mode %04o: %v; and the mend?", mode, err)
		}
	}
}

// No open waits for a FIFO's writer, and none reads from it.
func TestAFIFOWithAWriterKeepsWhatItHolds(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	must(t, unix.Mkfifo(path, 0o600))
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	_, err = f.WriteString("key")
	must(t, err)
	if _, err := New(Config{Path: path}).Read(); !errors.Is(err, ErrNotRegular) {
		t.Errorf("%v, want ErrNotRegular", err)
	}
	b := make([]byte, 9)
	if n, err := f.Read(b); err != nil || string(b[:n]) != "key" {
		t.Errorf("it holds %q, %v", b[:n], err)
	}
}

// A file that is bind-mounted, as by a container's volume of one file or a subPath, is pinned to the inode that it was: no rename
// on the host would ever be seen.
func TestAFileThatIsAMountPointIsRefused(t *testing.T) {
	for _, place := range []string{t.TempDir(), memory(t)} {
		source, path := filepath.Join(place, "source"), filepath.Join(place, "key")
		render(t, source, "pinned")
		render(t, path, "plain")
		w := New(Config{Path: path, Tick: never})
		c := consume(t, w)
		c.key("plain")
		if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
			t.Skipf("NOT TESTED, a bind mount isn't permitted here: %v", err)
		}
		t.Cleanup(func() { unix.Unmount(path, unix.MNT_DETACH) })
		w.Check() // a mount raises no event
		if err := c.error(ErrMounted, path); !strings.Contains(err.Error(), "mount the directory, not the file") {
			t.Errorf("%v; and the mend?", err)
		}
		unmount(t, path)
		w.Check()
		c.key("plain")

		// The directory may well be one: that is the mend.
		must(t, os.Mkdir(filepath.Join(place, "dir"), 0o700))
		dir := filepath.Join(place, "dir")
		must(t, unix.Mount(place, dir, "", unix.MS_BIND, ""))
		t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
		if _, err := New(Config{Path: filepath.Join(dir, "key")}).Read(); err != nil {
			t.Error(err)
		}
		unmount(t, dir)
		c.stop()
	}
}
