package server_test

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/internal/server"
)

// exhausted is a listener that has something less than it needs for the first connections.
type exhausted struct {
	net.Listener
	lacks syscall.Errno
	times int
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.times > 0 {
		e.times--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", e.lacks)}
	}
	return e.Listener.Accept()
}

// net/http would end its server at most of these, and with it the app.
func TestAListenerThatFailsIsTriedAgainAndSaidOnce(t *testing.T) {
	for _, lacks := range []syscall.Errno{syscall.EMFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EPERM} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		ctx, stop := context.WithCancel(context.Background())
		s := newServer(&fake{}, func(c *server.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
		var serving sync.WaitGroup
		serving.Go(func() {
			if err := s.Serve(ctx, &exhausted{l, lacks, 3}); err != nil {
				t.Error(err)
			}
		})
		if a := get(t, "http://"+l.Addr().String()+"/livez"); a.status != 200 {
			t.Errorf("/livez: %d", a.status)
		}
		stop()
		serving.Wait()
		for said, times := range map[string]int{"no connection can be accepted": 1, lacks.Error(): 1, "accepted again": 1, "Accept error": 0} {
			if n := strings.Count(log.String(), said); n != times {
				t.Errorf("%q is said %d times, want %d:\n%s", said, n, times, log.String())
			}
		}
	}
}

// The end of a server doesn't wait for a listener that goes on failing.
func TestAListenerThatFailsDoesNotHoldUpTheEnd(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, stop)
	s := newServer(&fake{}, func(c *server.Config) {})
	if err := s.Serve(ctx, &exhausted{l, syscall.ENOMEM, 1 << 30}); err != nil {
		t.Error(err)
	}
}
