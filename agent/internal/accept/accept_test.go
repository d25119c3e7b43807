package accept

import (
	"bytes"
	"errors"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// listener fails failures times with code, then accepts. Once it is closed it says so.
type listener struct {
	failures int
	code     syscall.Errno
	closed   bool
}

func (l *listener) Accept() (net.Conn, error) {
	switch {
	case l.closed:
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: net.ErrClosed}
	case l.failures > 0:
		l.failures--
		return nil, &net.OpError{Op: "accept", Net: "unix", Addr: l.Addr(), Err: os.NewSyscallError("accept4", l.code)}
	}
	conn, _ := net.Pipe()
	return conn, nil
}

func (l *listener) Close() error {
	l.closed = true
	return nil
}

func (*listener) Addr() net.Addr { return &net.UnixAddr{Name: "agent.sock", Net: "unix"} }

func TestWhateverFailsIsTriedAgainAndSaidOnce(t *testing.T) {
	for _, code := range []syscall.Errno{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EPERM, syscall.EPROTO, syscall.ENETDOWN} {
		synctest.Test(t, func(t *testing.T) {
			var said bytes.Buffer
			l := Patiently(&listener{failures: 7, code: code}, slog.New(slog.NewTextHandler(&said, nil)))
			began := time.Now()
			for range 2 {
				if conn, err := l.Accept(); err != nil || conn == nil {
					t.Errorf("%v ends it: %v", code, err)
				}
			}
			if took := time.Since(began); took != (50+100+200+400+800+1000+1000)*time.Millisecond {
				t.Errorf("%v is over after %v", code, took)
			}
			lines := strings.Split(strings.TrimSpace(said.String()), "\n")
			if len(lines) != 2 || !strings.Contains(lines[0], `listener=agent.sock reason="`+code.Error()+`"`) || !strings.Contains(lines[1], "again") {
				t.Errorf("of %v it is said: %q", code, lines)
			}
		})
	}
}

func TestTheEndIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Patiently(&listener{failures: 1000, code: syscall.ENOMEM}, slog.New(slog.DiscardHandler))
		ended := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			ended <- err
		}()
		time.Sleep(time.Minute + time.Millisecond)
		synctest.Wait()
		began := time.Now()
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) || time.Since(began) != 0 {
			t.Errorf("%v after it was closed: %v", time.Since(began), err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a closed one: %v", err)
		}
	})
}
