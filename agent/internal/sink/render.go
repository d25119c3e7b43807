package sink

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// mode is what a rendered file has, exactly.
const mode fs.FileMode = 0o600

// maxAdopted bounds what is taken over; no render of a key is nearly as long.
const maxAdopted = 64 << 10

var errSwapped = errors.New("it was replaced while it was looked at")

// Adopt returns what file holds, if it passes the checks that a render would have made sure of: a regular file, 0600, ours,
// in memory, neither empty nor huge. A file that is missing is fs.ErrNotExist; any other error says what is wrong with it.
func (d *Dir) Adopt(file string) (secret.Value, secret.Identity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f, info, err := d.openChecked(file)
	if err != nil {
		return secret.Value{}, secret.Identity{}, err
	}
	defer f.Close()
	if info.Size() == 0 || info.Size() > maxAdopted {
		return secret.Value{}, secret.Identity{}, fmt.Errorf("%s/%s has %d bytes, which no key has", d.path, file, info.Size())
	}
	content := make([]byte, info.Size())
	defer clear(content)
	if _, err := io.ReadFull(f, content); err != nil {
		return secret.Value{}, secret.Identity{}, fmt.Errorf("%s/%s: %w", d.path, file, reason(err))
	}
	d.lastTime = later(d.lastTime, info.ModTime())
	return secret.New(content), identity(info), nil
}

// openChecked opens file for reading if it is what a render leaves: no link, no other owner, no other mode.
func (d *Dir) openChecked(file string) (*os.File, fs.FileInfo, error) {
	before, err := d.pin.root.Lstat(file)
	if err != nil {
		return nil, nil, err
	}
	if before.Mode() != mode {
		return nil, nil, fmt.Errorf("%s/%s has mode %s, not %s", d.path, file, before.Mode(), mode)
	}
	f, err := d.openSame(file, before)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case owner(before) != os.Geteuid():
		err = fmt.Errorf("%s/%s is owned by another uid", d.path, file)
	case links(before) != 1:
		err = fmt.Errorf("%s/%s has a second name", d.path, file)
	default:
		err = d.checkMemory(f)
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, before, nil
}

// openSame opens file for reading if it is still the one that was seen. It waits for nobody, whatever took its place.
func (d *Dir) openSame(file string, seen fs.FileInfo) (*os.File, error) {
	f, err := d.pin.root.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && (!os.SameFile(seen, info) || info.Mode() != seen.Mode()) {
		err = errSwapped
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s/%s: %w", d.path, file, reason(err)), f.Close())
	}
	return f, nil
}

// Render puts a file that holds exactly v in the place of whatever stands there, in one rename; its identity is one that no
// earlier render had. On an error the old file is still there, and nothing else. It writes only while the directory is the
// one at its path: Mend comes before.
func (d *Dir) Render(file string, v secret.Value) (secret.Identity, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, pinned := d.atPath(); !pinned {
		return secret.Identity{}, fmt.Errorf("%s was replaced: nothing is written before it is put back", d.path)
	}
	return d.replace(file, v)
}

func (d *Dir) replace(file string, v secret.Value) (secret.Identity, error) {
	name := temporaryName(file)
	f, err := d.pin.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return secret.Identity{}, fmt.Errorf("%s: a temporary file can't be made: %w", d.path, reason(err))
	}
	stopAt(name, "made")
	id, err := d.fill(f, name, v)
	err = errors.Join(err, f.Close())
	if err == nil {
		err = d.rename(name, file)
	}
	if err != nil {
		d.pin.root.Remove(name)
		return secret.Identity{}, fmt.Errorf("%s/%s can't be written: %w", d.path, file, reason(err))
	}
	stopAt(name, "renamed")
	return id, nil
}

// fill is the order that this package exists for: mode, place, content, time.
func (d *Dir) fill(f *os.File, name string, v secret.Value) (secret.Identity, error) {
	if err := f.Chmod(mode); err != nil { // the umask may have taken bits away
		return secret.Identity{}, err
	}
	if err := d.checkMemory(f); err != nil {
		return secret.Identity{}, err
	}
	stopAt(name, "permitted")
	if _, err := f.Write(v.Reveal()); err != nil {
		return secret.Identity{}, err
	}
	stopAt(name, "written")
	at := later(time.Now().Round(0), d.lastTime.Add(1)) // by the clock on the wall, which may have been set back
	if err := d.pin.root.Chtimes(name, at, at); err != nil {
		return secret.Identity{}, err
	}
	stopAt(name, "dated")
	info, err := f.Stat()
	if err != nil {
		return secret.Identity{}, err
	}
	d.lastTime = at
	return identity(info), nil
}

// rename puts the written file in its place.
func (d *Dir) rename(name, file string) error {
	err := d.pin.root.Rename(name, file)
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrExist) {
		if err := d.setAside(file); err != nil {
			return err
		}
		err = d.pin.root.Rename(name, file)
	}
	return err
}

func identity(info fs.FileInfo) secret.Identity {
	return secret.Identity{Inode: info.Sys().(*syscall.Stat_t).Ino, ModTime: info.ModTime().UnixNano()}
}

func links(info fs.FileInfo) uint64 { return uint64(info.Sys().(*syscall.Stat_t).Nlink) }

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
