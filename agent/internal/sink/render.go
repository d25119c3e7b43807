package sink

import (
	"crypto/rand"
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
	d.stamps[file] = stampOf(info)
	d.lastTime = later(d.lastTime, info.ModTime())
	return secret.New(content), identity(info), nil
}

// Render makes file hold exactly v. A file that already does, and passes Adopt's checks, is left untouched: written is false.
// Otherwise it is replaced in one rename, and its identity is one that no earlier render had. On an error the old file is
// still there, and nothing else.
//
// First the pinned directory must still be the one at its path; if it isn't, the one that is there is checked and opened.
func (d *Dir) Render(file string, v secret.Value) (id secret.Identity, written bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.repin(); err != nil {
		return secret.Identity{}, false, err
	}
	if id, ok := d.holds(file, v); ok {
		return id, false, nil
	}
	id, err = d.replace(file, v)
	return id, err == nil, err
}

// repin follows the path when somebody has replaced the directory, and tightens its mode when somebody has loosened it.
func (d *Dir) repin() error {
	current, pinned, err := d.atPath()
	if err != nil {
		return err
	}
	if !pinned {
		fresh, err := d.open()
		if err != nil {
			return err
		}
		d.pin.close()
		d.pin = fresh
		return nil
	}
	if current.Mode().Perm() != 0o700 {
		return d.pin.root.Chmod(".", 0o700)
	}
	return nil
}

// atPath returns what stands at the path, nil if nothing does, and whether it is the pinned directory.
func (d *Dir) atPath() (current fs.FileInfo, pinned bool, err error) {
	own, err := d.pin.lock.Stat()
	if err != nil {
		return nil, false, fmt.Errorf("%s: %w", d.path, reason(err))
	}
	current, err = os.Lstat(d.path)
	if err != nil {
		return nil, false, nil
	}
	return current, os.SameFile(own, current), nil
}

func (d *Dir) holds(file string, v secret.Value) (secret.Identity, bool) {
	f, info, err := d.openChecked(file)
	if err != nil {
		return secret.Identity{}, false
	}
	defer f.Close()
	if info.Size() != int64(len(v.Reveal())) {
		return secret.Identity{}, false
	}
	content := make([]byte, info.Size())
	defer clear(content)
	if _, err := io.ReadFull(f, content); err != nil || string(content) != string(v.Reveal()) {
		return secret.Identity{}, false
	}
	d.stamps[file] = stampOf(info)
	return identity(info), true
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
	f, err := d.pin.root.Open(file)
	if err != nil {
		return nil, nil, err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !os.SameFile(before, info) || info.Mode() != mode:
		err = fmt.Errorf("%s/%s was replaced while it was looked at", d.path, file)
	case int(info.Sys().(*syscall.Stat_t).Uid) != os.Geteuid():
		err = fmt.Errorf("%s/%s is owned by another uid", d.path, file)
	case info.Sys().(*syscall.Stat_t).Nlink != 1:
		err = fmt.Errorf("%s/%s has a second name", d.path, file)
	default:
		err = d.checkMemory(f)
	}
	if err != nil {
		f.Close()
		return nil, nil, err
	}
	return f, info, nil
}

func (d *Dir) replace(file string, v secret.Value) (secret.Identity, error) {
	name := "." + file + temporary + rand.Text()
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
	d.remember(file, id)
	return id, nil
}

// remember takes the stamp of a file that was just renamed into place. If another is there already, Drift finds no stamp.
func (d *Dir) remember(file string, id secret.Identity) {
	delete(d.stamps, file)
	if info, err := d.pin.root.Lstat(file); err == nil && identity(info) == id {
		d.stamps[file] = stampOf(info)
	}
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
	at := later(time.Now(), d.lastTime.Add(1))
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

// rename puts the written file in its place. What stands there and isn't a file was planted, since nobody else may write here.
func (d *Dir) rename(name, file string) error {
	err := d.pin.root.Rename(name, file)
	if errors.Is(err, syscall.EISDIR) || errors.Is(err, fs.ErrExist) {
		if err := d.pin.root.RemoveAll(file); err != nil {
			return err
		}
		err = d.pin.root.Rename(name, file)
	}
	return err
}

func identity(info fs.FileInfo) secret.Identity {
	return secret.Identity{Inode: info.Sys().(*syscall.Stat_t).Ino, ModTime: info.ModTime().UnixNano()}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
