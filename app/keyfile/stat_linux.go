package keyfile

import (
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

func stampOf(info fs.FileInfo) stamp {
	s := info.Sys().(*syscall.Stat_t)
	return stamp{inode: s.Ino, size: s.Size, written: s.Mtim.Nano(), change: s.Ctim.Nano()}
}

// isMountPoint reports whether something is mounted on the very file. Kernels before 5.8 can't tell, nor can a sandbox that
// forbids statx; the answer is then no.
func isMountPoint(f *os.File) bool {
	var s unix.Statx_t
	err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, 0, &s)
	return err == nil && s.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0
}
