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
	"errors"
	"fmt"
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
	stamps   map[string]stamp
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
	d := &Dir{path: path, options: o, stamps: map[string]stamp{}}
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

// Remove deletes the named files; one that isn't there is no error. It is for an exit that wipes.
func (d *Dir) Remove(files ...string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, file := range files {
		if err := d.pin.root.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (d *Dir) open() (*pin, error) {
	if err := os.Mkdir(d.path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s can't be made, since %s is missing: make or mount that first", d.path, filepath.Dir(d.path))
		}
		return nil, fmt.Errorf("%s is missing and can't be made: %w: make it, mode 0700, owned by uid %d", d.path, reason(err), os.Geteuid())
	}
	if info, err := os.Lstat(d.path); err != nil {
		return nil, err
	} else if !info.IsDir() {
		return nil, fmt.Errorf("%s is not a directory (%s): name a directory", d.path, info.Mode().Type())
	}
	root, err := os.OpenRoot(d.path)
	if err != nil {
		return nil, fmt.Errorf("%s can't be opened: %w: it must be owned by uid %d, mode 0700", d.path, reason(err), os.Geteuid())
	}
	lock, err := root.Open(".")
	if err != nil {
		return nil, errors.Join(err, root.Close())
	}
	p := &pin{root, lock}
	if err := d.check(p); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, sweep(p)
}

// check looks at the opened directory, not at its path, so that what it finds is what will be used.
func (d *Dir) check(p *pin) error {
	info, err := p.lock.Stat()
	if err != nil {
		return err
	}
	uid := int(info.Sys().(*syscall.Stat_t).Uid)
	if uid != os.Geteuid() {
		return fmt.Errorf("%s is owned by uid %d, but the agent runs as %d: chown it, or name a subdirectory, which the agent makes itself",
			d.path, uid, os.Geteuid())
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
	if err := unix.Flock(int(p.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("%s: %w: stop that one, or set AGENT_DIR to another directory", d.path, ErrLocked)
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

// temporary marks the names of files that are being written. No secret's file may start with a dot, so none can clash.
const temporary = ".tmp-"

func sweep(p *pin) error {
	names, err := p.lock.Readdirnames(-1)
	if err != nil {
		return fmt.Errorf("%s: %w", p.lock.Name(), err)
	}
	for _, name := range names {
		if strings.HasPrefix(name, ".") && strings.Contains(name, temporary) {
			if err := p.root.Remove(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// reason strips the operation and path of err, which the sentence around it names already.
func reason(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}
