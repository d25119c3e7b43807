package server_test

import (
	"context"
	"crypto/rand"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// pipes is a listener within the process, for tests that run in a bubble of time: there a wait for the kernel is none that
// lets time pass.
type pipes struct {
	name   string
	conns  chan net.Conn
	closed chan struct{}
	close  func()
}

// names has all pipes that are listened on.
var names sync.Map

func newPipes(t *testing.T) *pipes {
	p := &pipes{name: strings.ToLower(rand.Text()) + ".test", conns: make(chan net.Conn), closed: make(chan struct{})}
	p.close = sync.OnceFunc(func() { close(p.closed) })
	names.Store(p.name, p)
	t.Cleanup(func() { names.Delete(p.name) })
	return p
}

func (p *pipes) url() string { return "http://" + p.name + ":80" }

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.close(); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: p.name, Net: "pipe"} }

func (p *pipes) dial(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		return ours, nil
	case <-p.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// dial connects to a host and port, or to pipes of that name.
func dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, _ := net.SplitHostPort(address)
	if p, ok := names.Load(host); ok {
		return p.(*pipes).dial(ctx)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// connect connects to the server at url.
func connect(t *testing.T, url string) (net.Conn, error) {
	return dial(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
}

// caller keeps no connection, so that none outlives its test.
var caller = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: dial}, Timeout: 20 * time.Second}
