package control

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"github.com/keyturn/keyturn/agent/internal/accept"
)

const (
	// connections bounds the callers that are connected at once; further ones wait in the socket's queue.
	connections = 64
	// watch is how often the socket is looked after: whoever replaces the directory takes it away.
	watch = 400 * time.Millisecond
	// farewell bounds the wait for requests that are under way at the end, or when the socket was taken away.
	farewell = 500 * time.Millisecond
	// apart is how far apart two sockets are made, however often one is taken away.
	apart = time.Second
)

// Serve answers on the socket at path until ctx ends, then removes it. The caller has locked the directory, so whatever
// stands at path was left behind or planted, and gives way. The socket is made, or made anew, for as long as it takes, at the
// start and whenever somebody has taken it away or put something in its place: the caller's files matter more than who can
// ask about them. That waits until locked reports that the directory at path is the caller's.
func (s *Server) Serve(ctx context.Context, path string, locked func() bool) error {
	for {
		l := s.await(ctx, path, locked)
		if l == nil {
			return nil
		}
		made := time.Now()
		if err := s.serve(ctx, l, path); err != nil || ctx.Err() != nil {
			return err
		}
		s.log.Warn("the socket was taken away; making it anew", "path", path)
		pause(ctx, time.Until(made.Add(apart)))
	}
}

// await tries until the socket is there. It returns nil if ctx ends first.
func (s *Server) await(ctx context.Context, path string, locked func() bool) *net.UnixListener {
	for said := ""; ctx.Err() == nil; pause(ctx, watch) {
		if !locked() {
			continue // who locks the directory says what is wrong with it
		}
		l, err := listen(path)
		if err == nil {
			return l
		}
		if reason := accept.Reason(err); reason != said {
			said = reason
			s.log.Warn("the socket can't be made; trying again", "path", path, "reason", reason)
		}
	}
	return nil
}

// serve answers on l until ctx ends or l's socket is no longer the one at path. It waits for the requests
// that it began, no longer than farewell.
func (s *Server) serve(ctx context.Context, l *net.UnixListener, path string) error {
	own, err := os.Lstat(path)
	if err != nil {
		return l.Close() // it was taken away at once
	}
	ctx, cancel := context.WithCancel(ctx)
	server := &http.Server{
		Handler:                      s.handler(),
		ReadHeaderTimeout:            2 * time.Second,
		ReadTimeout:                  3 * time.Second,
		WriteTimeout:                 maxWait + 5*time.Second,
		MaxHeaderBytes:               4 << 10,
		DisableGeneralOptionsHandler: true, // "OPTIONS *" is no request that is answered here
		ErrorLog:                     slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		BaseContext:                  func(net.Listener) context.Context { return ctx },
	}
	server.SetKeepAlivesEnabled(false) // callers ask seldom, and would hold a place meanwhile
	var wg sync.WaitGroup
	wg.Go(func() {
		for isStill(own, path) && pause(ctx, watch) {
		}
		cancel() // whoever waits for a refresh is told to ask again
		if isStill(own, path) {
			os.Remove(path)
		}
		bounded, release := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer release()
		if server.Shutdown(bounded) != nil {
			server.Close()
		}
	})
	err = server.Serve(netutil.LimitListener(accept.Patiently(&peers{l, s}, s.log), connections))
	cancel()
	wg.Wait()
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

// listen makes the socket, 0600, in place of whatever stands there.
func listen(path string) (*net.UnixListener, error) {
	if err := vacate(path); err != nil {
		return nil, err
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

// vacate takes away what stands at path. A directory may hold what can't be deleted: it is moved aside first, to a name that
// the next start sweeps.
func vacate(path string) error {
	if err := os.Remove(path); err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	aside := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp-"+rand.Text())
	if err := os.Rename(path, aside); err != nil {
		return err
	}
	os.RemoveAll(aside)
	return nil
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
