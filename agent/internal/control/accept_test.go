package control

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// net/http would end its server at this error, as it does for want of memory.
func TestAListenerThatCannotAcceptEndsNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	restore := breakListener(t, l)
	said := make(lines, 100)
	s := New(&loop{}, slog.New(slog.NewTextHandler(said, nil)))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.serve(ctx, l, path) }()
	select {
	case err := <-ended:
		t.Fatalf("the server ended: %v", err)
	case <-time.After(time.Second): // several attempts
	}
	restore()
	eventually(t, "somebody answers", func() bool { return isSocketOf(path) })
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := len(said); n != 2 {
		t.Errorf("%d lines are said of what came and went", n)
	}
}

// breakListener puts what is no socket in the place of l's descriptor, until the returned function is called.
func breakListener(t *testing.T, l *net.UnixListener) (restore func()) {
	t.Helper()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	raw, err := l.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	control := func(do func(fd int) error) {
		t.Helper()
		var failed error
		err := raw.Control(func(fd uintptr) { failed = do(int(fd)) })
		if err := errors.Join(err, failed); err != nil {
			t.Fatal(err)
		}
	}
	var own int
	control(func(fd int) (err error) {
		if own, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err != nil {
			return err
		}
		return unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC)
	})
	return func() {
		control(func(fd int) error { return errors.Join(unix.Dup3(own, fd, unix.O_CLOEXEC), unix.Close(own)) })
	}
}
