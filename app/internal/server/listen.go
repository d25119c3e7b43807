package server

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"syscall"
	"time"
)

// The wait after an accept that failed: each is twice the one before.
const shortestWait, longestWait = 50 * time.Millisecond, time.Second

// patient is a listener that tries again whatever the system can't do now, says so once, and once that it is over. net/http
// tries again for want of descriptors alone, ends its server for want of memory, and would log each attempt.
type patient struct {
	net.Listener
	log     *slog.Logger
	closed  chan struct{}
	endWait func()
}

func patiently(l net.Listener, log *slog.Logger) net.Listener {
	closed := make(chan struct{})
	return &patient{l, log, closed, sync.OnceFunc(func() { close(closed) })}
}

// Accept implements net.Listener.
func (p *patient) Accept() (net.Conn, error) {
	conn, err := p.Listener.Accept()
	code, mayPass := errors.AsType[syscall.Errno](err)
	if !mayPass {
		return conn, err
	}
	p.log.Warn("no connection can be accepted; trying again", "reason", code.Error())
	for wait := shortestWait; mayPass; wait = min(2*wait, longestWait) {
		select {
		case <-time.After(wait):
		case <-p.closed:
			return nil, net.ErrClosed
		}
		conn, err = p.Listener.Accept()
		_, mayPass = errors.AsType[syscall.Errno](err)
	}
	if err == nil {
		p.log.Info("connections are accepted again")
	}
	return conn, err
}

// Close implements net.Listener.
func (p *patient) Close() error {
	defer p.endWait()
	return p.Listener.Close()
}
