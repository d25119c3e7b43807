//go:build unix && !linux

package keyfile

import (
	"io/fs"
	"os"
	"syscall"
)

// stampOf gives the mtime for the ctime, which each system calls by another name: every change then waits until it is stable.
func stampOf(info fs.FileInfo) stamp {
	written := info.ModTime().UnixNano()
	return stamp{inode: uint64(info.Sys().(*syscall.Stat_t).Ino), size: info.Size(), written: written, change: written}
}

func isMountPoint(*os.File) bool { return false }
