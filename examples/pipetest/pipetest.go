// Package pipetest is a network within the process, for tests that run in a bubble of time (testing/synctest): a wait for the
// kernel's network lets no time pass there, and one for this does.
//
// A connection holds nothing up: who writes waits until the other end has read, or closes, or a deadline is over.
package pipetest

import (
	"context"
	"crypto/rand"
	"net"
	"strings"
	"sync"
	"testing"
)

// Listener is a net.Listener. Use Listen.
type Listener struct {
	address string
	conns   chan net.Conn
	closed  chan struct{}
	close   func()
}

// listeners has those of all tests that run, by their addresses.
var listeners sync.Map

// Listen returns a listener at an address of its own, which ends with the test.
func Listen(t testing.TB) *Listener {
	l := &Listener{address: strings.ToLower(rand.Text()) + ".test:80", conns: make(chan net.Conn), closed: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.closed) })
	listeners.Store(l.address, l)
	t.Cleanup(func() {
		listeners.Delete(l.address)
		l.close()
	})
	return l
}

// Address returns what Dial connects to.
func (l *Listener) Address() string { return l.address }

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return &net.UnixAddr{Name: l.address, Net: "pipe"} }

// Close implements net.Listener.
func (l *Listener) Close() error { l.close(); return nil }

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Dial connects to a Listener, or, where none has that address, as a net.Dialer does.
func Dial(ctx context.Context, network, address string) (net.Conn, error) {
	found, ok := listeners.Load(address)
	if !ok {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	l := found.(*Listener)
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
