package sidecar

import (
	"errors"
	"io/fs"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// peer returns the uid of the process at the other end (unix(7), SO_PEERCRED).
func peer(c *net.UnixConn) (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var credentials *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		credentials, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	return int(credentials.Uid), nil
}

func instanceOf(info fs.FileInfo) Instance {
	s := info.Sys().(*syscall.Stat_t)
	return Instance{s.Ino, s.Ctim.Nano()}
}
