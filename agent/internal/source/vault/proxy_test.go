package vault

import (
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/porttest"
)

// proxy stands between a driver and Vault. It notes what is asked, and can hang, go away, or answer itself.
type proxy struct {
	t       testing.TB
	forward http.Handler
	open    atomic.Int64 // connections

	mu       sync.Mutex
	server   *http.Server
	served   chan struct{}
	addr     string
	asked    []asked
	hang     chan struct{}
	waiting  chan struct{}
	override http.HandlerFunc
}

type asked struct {
	what      string // method and path
	namespace string
	token     string
}

// startProxy points VAULT_ADDR at a new proxy in front of the Vault at url.
func startProxy(t testing.TB, target string) *proxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{MaxIdleConnsPerHost: 64}
	p := &proxy{t: t, addr: porttest.Loopback(t), forward: &httputil.ReverseProxy{
		Rewrite:      func(r *httputil.ProxyRequest) { r.SetURL(u); r.Out.Host = u.Host },
		Transport:    transport,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) },
	}}
	p.start()
	t.Cleanup(func() {
		p.resume()
		p.stop()
		transport.CloseIdleConnections()
	})
	return p
}

func (p *proxy) url() string { return "http://" + p.addr }

func (p *proxy) start() {
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.server, p.served = &http.Server{Handler: p, ConnState: p.note}, make(chan struct{})
	server, served := p.server, p.served
	go func() {
		defer close(served)
		server.Serve(l)
	}()
}

func (p *proxy) note(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		p.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		p.open.Add(-1)
	}
}

func (p *proxy) stop() {
	p.server.Close()
	<-p.served
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	p.asked = append(p.asked, asked{r.Method + " " + r.URL.Path, r.Header.Get("X-Vault-Namespace"), r.Header.Get("X-Vault-Token")})
	hang, waiting, override := p.hang, p.waiting, p.override
	p.mu.Unlock()
	if hang != nil {
		select {
		case waiting <- struct{}{}:
		default:
		}
		select {
		case <-hang:
		case <-r.Context().Done():
			return
		}
	}
	if override != nil {
		override(w, r)
		return
	}
	p.forward.ServeHTTP(w, r)
}

func (p *proxy) makeHang() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hang, p.waiting = make(chan struct{}), make(chan struct{}, 1)
	return p.waiting
}

func (p *proxy) resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hang != nil {
		close(p.hang)
		p.hang = nil
	}
}

// answer makes the proxy answer itself; nil ends that.
func (p *proxy) answer(h http.HandlerFunc) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.override = h
}

// silentAt makes the proxy leave without an answer what is asked at a path with that end.
func (p *proxy) silentAt(end string) {
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, end) {
			io.Copy(io.Discard, r.Body) // without this the server wouldn't see that the caller has gone
			<-r.Context().Done()
			return
		}
		p.forward.ServeHTTP(w, r)
	})
}

// forwardAfter lets Vault answer after d, unless the caller has gone by then.
func (p *proxy) forwardAfter(d time.Duration, w http.ResponseWriter, r *http.Request) {
	select {
	case <-time.After(d):
		p.forward.ServeHTTP(w, r)
	case <-r.Context().Done():
	}
}

// count returns how many requests contained what, a method and a part of a path, since the last forget.
func (p *proxy) count(what string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for _, a := range p.asked {
		if strings.Contains(a.what, what) {
			n++
		}
	}
	return n
}

func (p *proxy) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = nil
}

func (p *proxy) all() []asked {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]asked(nil), p.asked...)
}
