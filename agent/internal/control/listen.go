package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"
)

const (
	// connections bounds the callers that are connected at once; further ones wait in the socket's queue.
	connections = 64
	// watch is how often the socket is looked after: whoever replaces the directory takes it away.
	watch = time.Second
	// farewell bounds the wait for requests that are under way at the end.
	farewell = time.Second
)

// ErrInUse is what Serve returns, wrapped, if another process answers on the socket.
var ErrInUse = errors.New("another process answers there")

// Serve answers on the socket at path until ctx ends, then removes it. A socket that nobody answers on any more is
// replaced. Its error says why the socket can't be made; once it could, it is made anew for as long as it takes whenever
// somebody has taken it away.
func (s *Server) Serve(ctx context.Context, path string) error {
	l, err := listen(path)
	if err != nil {
		return err
	}
	reason := ""
	for {
		if l != nil {
			reason = ""
			if err := s.serve(ctx, l, path); err != nil || ctx.Err() != nil {
				return err
			}
			s.log.Warn("the socket was taken away; making it anew", "path", path)
		}
		if l, err = listen(path); err != nil {
			if r := err.Error(); r != reason {
				reason = r
				s.log.Warn("the socket can't be made; trying again", "reason", r)
			}
			if !pause(ctx, watch) {
				return nil
			}
		}
	}
}

// serve answers on l until ctx ends or l's socket is no longer the one at path. It waits for the requests that it began.
func (s *Server) serve(ctx context.Context, l *net.UnixListener, path string) error {
	own, err := os.Lstat(path)
	if err != nil {
		return l.Close() // it was taken away at once
	}
	ctx, cancel := context.WithCancel(ctx)
	server := &http.Server{
		Handler:           s.handler(),
		ReadHeaderTimeout: 2 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      maxWait + 5*time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    4 << 10,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for isStill(own, path) && pause(ctx, watch) {
		}
		cancel() // whoever waits for a refresh is told to ask again
		bounded, release := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer release()
		if server.Shutdown(bounded) != nil {
			server.Close()
		}
	})
	err = server.Serve(netutil.LimitListener(&peers{l, s}, connections))
	cancel()
	wg.Wait()
	if isStill(own, path) {
		os.Remove(path)
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// pause waits for d, and reports false if ctx ends first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func isStill(own fs.FileInfo, path string) bool {
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(own, now)
}

// listen makes the socket, 0600, in place of one that nobody answers on.
func listen(path string) (*net.UnixListener, error) {
	c, err := net.DialTimeout("unix", path, watch)
	if err == nil {
		c.Close()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case errors.Is(err, unix.ECONNREFUSED): // only that says that nobody listens; a busy process refuses otherwise
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%s: %w: stop it, or set AGENT_DIR to another directory", path, ErrInUse)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // by then the name may be another's
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// peers accepts connections of this process's uid and closes all others.
type peers struct {
	*net.UnixListener
	server *Server
}

func (p *peers) Accept() (net.Conn, error) {
	for {
		c, err := p.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(c); err == nil && uid == os.Geteuid() {
			return c, nil
		}
		p.server.refused.Add(1)
		c.Close()
	}
}

// peer returns the uid of the process at the other end (unix(7), SO_PEERCRED).
func peer(c *net.UnixConn) (int, error) {
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
