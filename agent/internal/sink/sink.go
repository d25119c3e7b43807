// Package sink puts secrets into files that only their owner can read, in memory, whole or not at all.
//
// Two guarantees, and this package alone owns them:
//
//   - Nobody can open a file before its mode and place are right: permissions first, then the check that it lies in memory,
//     then the content, and the rename last.
//   - Nobody sees half: a reader gets the old bytes or the new ones, and a write that fails leaves the old file and nothing else.
//
// The directory is pinned when it is opened (os.Root), so no link leads out of it and no rename of a parent moves it.
// Rejected: the kubelet's ..data links. They switch many files at once, which one key a file doesn't need, and other
// languages expect a plain file.
package sink

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked is what Open returns, wrapped, where another agent renders to the same directory.
var ErrLocked = errors.New("another agent renders to it")

// Options says what a directory may be.
type Options struct {
	// AllowDisk lifts the demand that the directory is a tmpfs or ramfs.
	AllowDisk bool
}

// Dir is a directory that holds rendered files. It is safe for concurrent use.
type Dir struct {
	path    string
	options Options

	mu       sync.Mutex
	pin      *pin
	lastTime time.Time // of any render: modification times only grow
}

// pin is one opened directory: the root that file operations go through, and the descriptor that holds the lock.
type pin struct {
	root *os.Root
	lock *os.File
}

func (p *pin) close() error { return errors.Join(p.root.Close(), p.lock.Close()) }

// Open makes the directory's last element if it is missing (0700), checks it, takes its lock and removes what an agent
// that was killed left half-written. Each of its errors is a sentence that names the mend. Close gives the lock back.
func Open(path string, o Options) (*Dir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, options: o}
	if d.pin, err = d.open(); err != nil {
		return nil, err
	}
	return d, nil
}

// Path returns the directory's absolute path.
func (d *Dir) Path() string { return d.path }

// Close gives up the lock. The files stay.
func (d *Dir) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.pin.close()
}

// Remove deletes the named files, whatever else stands in their place, and what an unfinished write has left; one that isn't
// there is no error. It is for an exit that wipes.
func (d *Dir) Remove(files ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.pin.lock.Chmod(directoryMode) // under another nothing may be removed
	sweep(d.pin)                    // nor could what a write has left
	var errs []error
	for _, file := range files {
		err := d.pin.root.Remove(file)
		if errors.Is(err, fs.ErrExist) { // a directory that isn't empty
			err = d.setAside(file)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("%s/%s can't be removed: %w", d.path, file, reason(err)))
		}
	}
	return errors.Join(errs...)
}

func (d *Dir) open() (*pin, error) {
	if err := os.Mkdir(d.path, directoryMode); err != nil && !errors.Is(err, fs.ErrExist) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s can't be made, since %s is missing: make or mount that first", d.path, filepath.Dir(d.path))
		}
		return nil, fmt.Errorf("%s is missing and can't be made: %w: make it, mode 0700, owned by uid %d", d.path, reason(err), os.Geteuid())
	}
	info, err := os.Lstat(d.path)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.path, reason(err))
	}
	if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory but a %s: name a directory", d.path, kind(info.Mode()))
	}
	root, err := os.OpenRoot(d.path + "/") // with the slash a pipe that took its place is refused, and not waited for
	if err != nil {
		return nil, fmt.Errorf("%s can't be opened: %w: it must be owned by uid %d, mode 0700", d.path, reason(err), os.Geteuid())
	}
	lock, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s can't be opened: %w", d.path, reason(err)), root.Close())
	}
	p := &pin{root, lock}
	if err := d.check(p, info); err != nil {
		return nil, errors.Join(err, p.close())
	}
	sweep(p)
	return p, nil
}

// check looks at the opened directory, so that what it finds is what will be used; seen is what stood at its path.
func (d *Dir) check(p *pin, seen fs.FileInfo) error {
	info, err := p.lock.Stat()
	if err != nil {
		return err
	}
	if !os.SameFile(info, seen) {
		return fmt.Errorf("%s was replaced while it was opened", d.path)
	}
	if err := d.checkOwner(info); err != nil {
		return err
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s has mode %04o, so others can look into it: chmod 0700 %s", d.path, mode, d.path)
	}
	if err := unix.Faccessat(int(p.lock.Fd()), ".", unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
		return fmt.Errorf("%s is not writable: %w: mount it read-write, mode 0700", d.path, err)
	}
	if err := d.checkMemory(p.lock); err != nil {
		return err
	}
	switch err := unix.Flock(int(p.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("%s: %w: stop that one, or set AGENT_DIR to another directory", d.path, ErrLocked)
	case err != nil:
		return fmt.Errorf("%s can't be locked: %w: set AGENT_DIR to another directory", d.path, err)
	}
	return nil
}

func (d *Dir) checkOwner(info fs.FileInfo) error {
	if uid := owner(info); uid != os.Geteuid() {
		return fmt.Errorf("%s is owned by uid %d, but the agent runs as %d: chown it, or name a subdirectory, which the agent makes itself",
			d.path, uid, os.Geteuid())
	}
	return nil
}

// checkMemory refuses a file or directory that lies on a disk, where a deleted key can be found again.
func (d *Dir) checkMemory(f *os.File) error {
	if d.options.AllowDisk {
		return nil
	}
	var s unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &s); err != nil {
		return fmt.Errorf("%s: statfs: %w", d.path, err)
	}
	if s.Type != unix.TMPFS_MAGIC && s.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is not on a tmpfs, so the key would reach a disk: mount a tmpfs there (or set AGENT_REQUIRE_TMPFS=false to accept that)", d.path)
	}
	return nil
}

// directoryMode is what the directory has, exactly.
const directoryMode fs.FileMode = 0o700

// temporary marks the names of files that are being written. No secret's file may start with a dot, so none can clash.
const temporary = ".tmp-"

// temporaryName returns a name that nobody has used before.
func temporaryName(file string) string { return "." + file + temporary + rand.Text() }

// sweep removes what has a temporary name. What somebody planted so that it can't be removed is in nobody's way.
func sweep(p *pin) {
	p.lock.Seek(0, io.SeekStart)
	names, _ := p.lock.Readdirnames(-1)
	for _, name := range names {
		if strings.HasPrefix(name, ".") && strings.Contains(name, temporary) {
			p.root.RemoveAll(name)
		}
	}
}

// setAside takes a directory from where a file belongs. It was planted, since nobody else may write here, so it is removed as
// far as that is possible.
func (d *Dir) setAside(file string) error {
	aside := temporaryName(file)
	if err := d.pin.root.Rename(file, aside); err != nil {
		return err
	}
	d.pin.root.RemoveAll(aside)
	return nil
}

func owner(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// reason strips the operations and names from err: the sentence around it has the file's, and a temporary one says nothing.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return reason(e.Err)
	}
	if e, ok := errors.AsType[*os.LinkError](err); ok {
		return reason(e.Err)
	}
	if e, ok := errors.AsType[*os.SyscallError](err); ok {
		return reason(e.Err)
	}
	return err
}
