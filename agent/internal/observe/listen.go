package observe

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/accept"
)

const (
	// connections bounds those who watch at once.
	connections = 32
	// farewell bounds the wait for answers that are under way at the end.
	farewell = time.Second
)

// Serve answers with h on l until ctx ends, and closes l. A connection is good for one request, and whoever is slow is cut
// off. What keeps l from accepting is said to log and waited for, and ends nothing. Its error says that somebody else has
// closed l.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	server := &http.Server{
		Handler:                      h,
		ConnState:                    new(crowd).note,
		ReadHeaderTimeout:            2 * time.Second,
		ReadTimeout:                  3 * time.Second,
		WriteTimeout:                 5 * time.Second,
		MaxHeaderBytes:               8 << 10,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is nothing that h serves
		ErrorLog:                     slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	server.SetKeepAlivesEnabled(false) // whoever watches asks every few seconds, and would hold a place meanwhile
	ctx, cancel := context.WithCancel(ctx)
	var stopping sync.WaitGroup
	stopping.Go(func() {
		<-ctx.Done()
		bounded, release := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer release()
		if server.Shutdown(bounded) != nil {
			server.Close()
		}
	})
	err := server.Serve(accept.Patiently(l, log))
	cancel()
	stopping.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// crowd is who is connected, the longest first. When one too many comes, the first gives way: a probe takes a moment, so it
// gets through however many others hold on. To let it wait for a place would be a cheap way to have the agent killed.
type crowd struct {
	mu    sync.Mutex
	conns []net.Conn
}

// note is a ConnState hook. The server calls it with http.StateNew before it accepts the next connection.
func (c *crowd) note(conn net.Conn, state http.ConnState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch state {
	case http.StateNew:
		c.conns = append(c.conns, conn)
		if len(c.conns) > connections {
			c.conns[0].Close()
			c.conns = slices.Delete(c.conns, 0, 1)
		}
	case http.StateClosed:
		c.conns = slices.DeleteFunc(c.conns, func(other net.Conn) bool { return other == conn })
	}
}
