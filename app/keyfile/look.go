package keyfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// Reasons why a file is not read, whatever it holds. Read and Keys wrap them, as they wrap those of NewKey.
var (
	ErrUnsettled  = errors.New("it is being written in place: write another file and rename it")
	ErrNotRegular = errors.New("it is not a regular file")
	ErrMode       = errors.New("group or others may use it")
	ErrOwner      = errors.New("it belongs to another user")
	ErrMounted    = errors.New("it is itself a mount point, so it would never change: mount the directory, not the file")
)

// settle is how long a file that was written in place must be left alone: the 50 ms of the promise, and 10 ms, since the
// kernel's clock for files lags behind time.Now by up to a tick, which is that long at most.
const settle = 60 * time.Millisecond

// look opens the file, judges what it has opened, and reads it. O_NONBLOCK: a FIFO without a writer would block the open.
func (w *Watcher) look(p *past) (Reading, error) {
	path := w.config.Path
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOCTTY, 0)
	if err != nil {
		return Reading{}, explain(path, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return Reading{}, explain(path, err)
	}
	settled := p.settled(stampOf(info), time.Now())
	if err := w.refuse(f, info); err != nil {
		return Reading{}, err
	}
	if !settled {
		return Reading{}, fmt.Errorf("%s: %w", path, ErrUnsettled)
	}
	return read(f, info)
}

// refuse says what is wrong with an opened file apart from its content.
func (w *Watcher) refuse(f *os.File, info fs.FileInfo) error {
	path, allowed := w.config.Path, fs.FileMode(0o600)
	if w.config.AllowGroup {
		allowed = 0o640
	}
	mode, us := info.Mode(), os.Geteuid()
	owner := int(info.Sys().(*syscall.Stat_t).Uid)
	switch {
	case !mode.IsRegular():
		return fmt.Errorf("%s: %w (%s): put a file there that holds the key", path, ErrNotRegular, mode.Type())
	case isMountPoint(f):
		return fmt.Errorf("%s: %w", path, ErrMounted)
	case owner != us && owner != 0:
		return fmt.Errorf("%s: %w (uid %d, and we are %d): chown %d %s", path, ErrOwner, owner, us, us, path)
	case mode.Perm()&0o077&^allowed != 0:
		return fmt.Errorf("%s: %w (mode %04o): chmod %04o %s", path, ErrMode, mode.Perm(), allowed, path)
	}
	return nil
}

// read reads what a file of that info holds. A file that isn't the same afterwards was written to meanwhile. Its ctime may
// have changed: a file that another is renamed over gets a new one, and is whole nevertheless.
func read(f *os.File, before fs.FileInfo) (Reading, error) {
	content := make([]byte, MaxSize+1)
	defer clear(content)
	n, err := io.ReadFull(f, content)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return Reading{}, explain(f.Name(), err)
	}
	after, err := f.Stat()
	if err != nil {
		return Reading{}, explain(f.Name(), err)
	}
	if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return Reading{}, fmt.Errorf("%s: %w", f.Name(), ErrUnsettled)
	}
	key, err := NewKey(content[:n])
	if err != nil {
		return Reading{}, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return Reading{key, Identity{Inode: stampOf(before).inode, ModTime: before.ModTime().UnixNano()}}, nil
}

// explain makes a sentence of what the system said.
func explain(path string, err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		err = e.Err
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		dir := filepath.Dir(path)
		if _, statErr := os.Stat(dir); errors.Is(statErr, fs.ErrNotExist) {
			return fmt.Errorf("%s: %w: %s is missing: mount it, or start the agent", path, err, dir)
		}
		return fmt.Errorf("%s: %w: start the agent, or put the key there, mode 0600", path, err)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w: uid %d may not enter the directory or not read the file: chown both to it", path, err, os.Geteuid())
	case errors.Is(err, syscall.ENXIO): // a socket, or a device that isn't there
		return fmt.Errorf("%s: %w: put a file there that holds the key", path, ErrNotRegular)
	}
	return fmt.Errorf("%s: %w", path, err)
}

// stamp is what tells one state of a file from another.
type stamp struct {
	inode           uint64
	size            int64
	written, change int64 // mtime and ctime, in nanoseconds since 1970
}

// past is what earlier looks have seen. The zero past is none.
type past struct {
	stamp   stamp
	renamed bool
}

// settled reports whether a file with the stamp s may be taken at the time now; the package's documentation has the rule. A
// ctime from the future is that of an old file before the clock was set back: no file system of this machine is ahead of it.
func (p *past) settled(s stamp, now time.Time) bool {
	switch {
	case s.inode != p.stamp.inode:
		p.renamed = s.written != s.change
	case s != p.stamp:
		p.renamed = false
	}
	p.stamp = s
	quiet := settle
	if s.change%int64(time.Second) == 0 { // a file system that counts in seconds has cut off what followed
		quiet += time.Second
	}
	return p.renamed || now.Sub(time.Unix(0, s.change)).Abs() >= quiet
}
