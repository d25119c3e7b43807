package sink

import (
	"fmt"
	"io/fs"
	"syscall"
)

// stamp is all that tells a file that was left alone from one that somebody touched. No change of a file, of its content, its
// mode, its owner or its names, leaves its ctime as it was (inode(7)).
type stamp struct {
	inode        uint64
	mode         fs.FileMode
	uid          uint32
	links        uint64
	size         int64
	mtime, ctime syscall.Timespec
}

func stampOf(info fs.FileInfo) stamp {
	s := info.Sys().(*syscall.Stat_t)
	return stamp{s.Ino, info.Mode(), s.Uid, uint64(s.Nlink), s.Size, s.Mtim, s.Ctim}
}

// Drift says what is no longer as Render, or Adopt, left it, in a few words that fit behind "found"; "" if all is. It reads no
// content, so it is cheap enough to be called every second. Render mends what it finds.
func (d *Dir) Drift(file string) string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if found := d.driftOfDir(); found != "" {
		return found
	}
	left, known := d.stamps[file]
	info, err := d.pin.root.Lstat(file)
	if err != nil || !known {
		return "no file"
	}
	now := stampOf(info)
	switch {
	case now == left:
		return ""
	case info.Mode().Type() != 0:
		return "a " + kind(info.Mode())
	case now.inode != left.inode:
		return "another file"
	case now.mode != left.mode:
		return fmt.Sprintf("mode %04o", now.mode.Perm())
	case now.uid != left.uid:
		return fmt.Sprintf("owner %d", now.uid)
	case now.links != left.links:
		return "a second name"
	case now.size != left.size || now.mtime != left.mtime:
		return "other content"
	}
	return "a file that was touched"
}

func (d *Dir) driftOfDir() string {
	current, pinned, err := d.atPath()
	switch {
	case err != nil || current == nil:
		return "no directory"
	case !pinned:
		return "another directory"
	case current.Mode().Perm() != 0o700:
		return fmt.Sprintf("a directory of mode %04o", current.Mode().Perm())
	}
	return ""
}

func kind(mode fs.FileMode) string {
	switch {
	case mode.IsDir():
		return "directory"
	case mode&fs.ModeSymlink != 0:
		return "link"
	}
	return "file that is not regular"
}
