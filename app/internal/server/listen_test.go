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

	"github.com/keyturn/keyturn/app/internal/server"
)

// exhausted is a listener that has no descriptor left for the first connections.
type exhausted struct {
	net.Listener
	times int
}

func (e *exhausted) Accept() (net.Conn, error) {
	if e.times > 0 {
		e.times--
		return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return e.Listener.Accept()
}

func TestAListenerThatFailsIsSaidOnce(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	ctx, stop := context.WithCancel(context.Background())
	s := newServer(&fake{}, func(c *server.Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := s.Serve(ctx, &exhausted{l, 5}); err != nil {
			t.Error(err)
		}
	})
	if a := get(t, "http://"+l.Addr().String()+"/livez"); a.status != 200 {
		t.Errorf("/livez: %d", a.status)
	}
	stop()
	serving.Wait()
	for said, times := range map[string]int{"no connection can be accepted": 1, "too many open files": 1, "accepted again": 1, "Accept error": 0} {
		if n := strings.Count(log.String(), said); n != times {
			t.Errorf("%q is said %d times, want %d:\n%s", said, n, times, log.String())
		}
	}
}
