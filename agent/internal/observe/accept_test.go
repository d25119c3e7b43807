package observe

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// short is a listener that has no memory for the first connections.
type short struct {
	net.Listener
	left atomic.Int32
}

func (s *short) Accept() (net.Conn, error) {
	if s.left.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: s.Addr(), Err: os.NewSyscallError("accept4", syscall.ENOMEM)}
	}
	return s.Listener.Accept()
}

// net/http would end its server at this error, and with it the agent.
func TestAListenerThatCannotAcceptEndsNothing(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &short{Listener: tcp}
	l.left.Store(3)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	var said bytes.Buffer
	go func() { ended <- Serve(ctx, l, http.NotFoundHandler(), slog.New(slog.NewTextHandler(&said, nil))) }()
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}
	response, err := client.Get("http://" + l.Addr().String())
	if err != nil {
		t.Error(err)
	} else {
		response.Body.Close()
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if n := strings.Count(said.String(), "\n"); n != 2 {
		t.Errorf("%d lines are said of what came and went: %s", n, &said)
	}
}
