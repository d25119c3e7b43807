package sink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Mend puts the directory back if somebody changed it: there is one at the path again, the agent's own, 0700, and from then on
// it is the one that files are rendered to. Found says what was wrong, in a few words that fit behind "found"; "" if nothing
// was. On an error, a sentence that names the mend, what was found is still so.
//
// It looks at the directory alone. One that was made anew holds no files until they are rendered to it.
func (d *Dir) Mend() (found string, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	current, pinned := d.atPath()
	switch {
	case current == nil:
		return "no directory", d.repin(nil)
	case !pinned && current.IsDir():
		return "another directory", d.repin(current)
	case !pinned:
		return "a " + kind(current.Mode()), d.repin(current)
	case owner(current) != os.Geteuid():
		return fmt.Sprintf("owner %d", owner(current)), d.checkOwner(current)
	case current.Mode().Perm() != directoryMode:
		if err = d.pin.lock.Chmod(directoryMode); err != nil {
			err = fmt.Errorf("%s can't be given mode 0700: %w: chmod it", d.path, reason(err))
		}
		return fmt.Sprintf("mode %04o", permissions(current)), err
	}
	return "", nil
}

// InPlace reports whether the directory at Path is the one that is checked and locked, rather than one that somebody has put
// in its place, or opened to others, since.
func (d *Dir) InPlace() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	current, pinned := d.atPath()
	return pinned && owner(current) == os.Geteuid() && current.Mode().Perm() == directoryMode
}

// atPath returns what stands at the path, nil if nothing that can be seen does, and whether it is the pinned directory.
func (d *Dir) atPath() (current fs.FileInfo, pinned bool) {
	own, err := d.pin.lock.Stat()
	if err != nil {
		return nil, false
	}
	current, err = os.Lstat(d.path)
	if err != nil {
		return nil, false
	}
	return current, os.SameFile(own, current)
}

// repin follows the path, at which something else than the pinned directory stands, or nothing.
func (d *Dir) repin(current fs.FileInfo) error {
	fresh, err := d.openAnew(current)
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; then restart the agent: a confined one follows only if its directory is alone in its parent", err)
	}
	if err != nil {
		return err
	}
	d.pin.close()
	d.pin = fresh
	return nil
}

// openAnew first makes of what stands at the path what open demands.
func (d *Dir) openAnew(current fs.FileInfo) (*pin, error) {
	switch {
	case current == nil:
	case current.IsDir():
		if err := tighten(d.path); err != nil {
			return nil, fmt.Errorf("%s can't be given mode 0700: %w: chmod it", d.path, reason(err))
		}
	default:
		if err := os.Remove(d.path); err != nil {
			return nil, fmt.Errorf("%s is a %s, and can't be removed: %w: make a directory in its place, mode 0700, owned by uid %d",
				d.path, kind(current.Mode()), reason(err), os.Geteuid())
		}
	}
	return d.open()
}

// tighten gives the directory at path its mode if it is ours. It may be one that nobody can open for reading; and no link is
// followed.
func tighten(path string) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var s unix.Stat_t
	if err := unix.Fstat(fd, &s); err != nil || int(s.Uid) != os.Geteuid() {
		return err // whose it is says check
	}
	return os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), directoryMode) // fchmod(2) takes no descriptor of O_PATH
}
