package server

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

const (
	// connections bounds those who are connected at once; further ones wait in the listener's queue.
	connections = 4096
	// farewell bounds how long what was cut may take to say so.
	farewell = time.Second
)

// Serve answers on l, which it closes, until ctx ends; then it stops in order: /readyz says no, and after Linger nobody new
// is accepted; what runs has Drain to end by itself; what still runs then is cut, and its callers are told. It returns nil
// then, or the error that broke l.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	calls, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(errStopping)
	server := &http.Server{
		Handler:           s,
		BaseContext:       func(net.Listener) context.Context { return calls },
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second, // of a request; its answer has none
		IdleTimeout:       90 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelWarn),
	}
	broken := make(chan struct{})
	var stopping sync.WaitGroup
	stopping.Go(func() {
		select {
		case <-ctx.Done():
			s.announce(broken)
		case <-broken:
		}
		s.drain(server, cut)
	})
	err := server.Serve(netutil.LimitListener(patiently(l, s.Log), connections))
	close(broken)
	stopping.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// announce says no to those who ask whether the server is ready, and gives them the time to turn away.
func (s *Server) announce(broken <-chan struct{}) {
	s.stopping.Store(true)
	s.Log.Info("stopping", "running", s.requests.running.Load())
	select {
	case <-time.After(s.Linger):
	case <-broken:
	}
}

// drain stops accepting, lets what runs end, and cuts what doesn't.
func (s *Server) drain(server *http.Server, cut context.CancelCauseFunc) {
	bounded, cancel := context.WithTimeout(context.Background(), s.Drain)
	defer cancel()
	if server.Shutdown(bounded) == nil {
		return
	}
	s.Log.Warn("cutting what still runs", "running", s.requests.running.Load())
	cut(errStopping)
	bounded, cancel = context.WithTimeout(context.Background(), farewell)
	defer cancel()
	if server.Shutdown(bounded) != nil {
		server.Close()
	}
}
