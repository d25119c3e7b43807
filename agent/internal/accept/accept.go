// Package accept keeps a server at its listener, whatever keeps it from accepting.
package accept

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// The wait after a failure: each is twice the one before.
const shortest, longest = 50 * time.Millisecond, time.Second

// Patiently returns l with an Accept that fails only once l is closed. net/http tries again for want of descriptors alone, and
// ends its server for want of memory. Here whatever fails is tried again, ever less often. It is said once, and once that it is
// over.
func Patiently(l net.Listener, log *slog.Logger) net.Listener {
	closed := make(chan struct{})
	return &patient{l, log, closed, sync.OnceFunc(func() { close(closed) })}
}

type patient struct {
	net.Listener
	log     *slog.Logger
	closed  chan struct{}
	endWait func()
}

// Accept implements net.Listener.
func (p *patient) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	if err == nil || errors.Is(err, net.ErrClosed) {
		return conn, err
	}
	log := p.log.With("listener", p.Addr().String())
	log.Warn("no connection can be accepted; trying again", "reason", Reason(err))
	for wait := shortest; err != nil; wait = min(2*wait, longest) {
		select {
		case <-time.After(wait):
		case <-p.closed:
			return nil, net.ErrClosed
		}
		if conn, err = p.Listener.Accept(); errors.Is(err, net.ErrClosed) {
			return nil, err
		}
	}
	log.Info("connections are accepted again")
	return conn, nil
}

// Close implements net.Listener.
func (p *patient) Close() error {
	defer p.endWait()
	return p.Listener.Close()
}

// Reason returns what err says without operations, addresses and names, which differ between attempts: of what the system
// refused, its own words alone.
func Reason(err error) string {
	if code, ok := errors.AsType[syscall.Errno](err); ok {
		return code.Error()
	}
	return err.Error()
}
