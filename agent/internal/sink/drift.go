package sink

import (
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// Drift says how file is no longer as Render, or Adopt, left it: it held v, and went by id. The answer is a few words that fit
// behind "found", and never the content; "" if all is as it was. It compares the content as well, since a descriptor that was
// opened while the file was being written can change it, and set its time, ever after. Render mends what it finds.
//
// It is cheap enough to be called every second for a thousand files, and waits for nobody.
func (d *Dir) Drift(file string, v secret.Value, id secret.Identity) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := d.pin.root.Lstat(file)
	if err != nil {
		return "no file"
	}
	switch {
	case !info.Mode().IsRegular():
		return "a " + kind(info.Mode())
	case identity(info).Inode != id.Inode:
		return "another file"
	case info.Mode() != mode:
		return fmt.Sprintf("mode %04o", permissions(info))
	case owner(info) != os.Geteuid():
		return fmt.Sprintf("owner %d", owner(info))
	case links(info) != 1:
		return "a second name"
	}
	if found := d.otherThan(v, file, info); found != "" {
		return found
	}
	if identity(info) != id {
		return "a file that was touched"
	}
	return ""
}

// otherThan looks into the file that was seen.
func (d *Dir) otherThan(v secret.Value, file string, seen fs.FileInfo) string {
	if seen.Size() != int64(len(v.Reveal())) {
		return "other content"
	}
	f, err := d.openSame(file, seen)
	switch {
	case errors.Is(err, errSwapped):
		return "another file"
	case errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM):
		return "" // that says nothing of the file, which is looked at again
	case err != nil: // somebody has a lease on it, for instance (fcntl(2), F_SETLEASE)
		return "a file that can't be opened"
	}
	defer f.Close()
	content := make([]byte, seen.Size())
	defer clear(content)
	if _, err := io.ReadFull(f, content); err != nil || subtle.ConstantTimeCompare(content, v.Reveal()) != 1 {
		return "other content"
	}
	return ""
}

// permissions are all twelve bits of a mode.
func permissions(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Mode & 0o7777 }

func kind(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "file"
	case fs.ModeDir:
		return "directory"
	case fs.ModeSymlink:
		return "link"
	case fs.ModeNamedPipe:
		return "pipe"
	case fs.ModeSocket:
		return "socket"
	}
	return "device"
}
