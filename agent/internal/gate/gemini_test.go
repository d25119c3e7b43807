package gate

import (
	"context"
	"crypto/x509"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// host is an HTTP server that notes the connections and the requests that reach it.
type host struct {
	*httptest.Server
	mu       sync.Mutex
	requests []*http.Request
	remotes  map[string]bool
}

func newHost(t *testing.T, handle http.HandlerFunc) *host {
	h := makeHost(t, handle)
	h.Start()
	return h
}

// makeHost returns one that isn't started.
func makeHost(t *testing.T, handle http.HandlerFunc) *host {
	h := &host{remotes: map[string]bool{}}
	h.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.mu.Lock()
		h.requests = append(h.requests, r.Clone(context.Background()))
		h.remotes[r.RemoteAddr] = true
		h.mu.Unlock()
		handle(w, r)
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *host) seen() (requests []*http.Request, connections int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.requests, len(h.remotes)
}

func probe(t *testing.T, url string) Answer {
	t.Helper()
	g, err := NewGemini(url, false)
	if err != nil {
		t.Fatal(err)
	}
	return g.Probe(t.Context(), secret.New([]byte(canary)))
}

func accept(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(`{"models":[{}]}`)) }

func TestAProbeIsOneCheapCallWithTheKeyInItsHeader(t *testing.T) {
	h := newHost(t, accept)
	if a := probe(t, h.URL+"/prefix/"); a.Kind != Accepted {
		t.Errorf("%+v", a)
	}
	requests, _ := h.seen()
	if len(requests) != 1 {
		t.Fatalf("%d requests", len(requests))
	}
	r := requests[0]
	if r.Method != "GET" || r.URL.String() != "/prefix/v1beta/models?pageSize=1" {
		t.Errorf("%s %s", r.Method, r.URL)
	}
	if r.Header.Get("X-Goog-Api-Key") != canary || r.Header.Get("Authorization") != "" {
		t.Error("the key isn't in its header, or something else is")
	}
}

// Another probe's connection may have fallen silent since, and then says nothing of a bad key.
func TestEachProbeHasAConnectionOfItsOwn(t *testing.T) {
	for version, start := range map[string]func(h *host){
		"HTTP/1.1": func(h *host) { h.StartTLS() },
		"HTTP/2.0": func(h *host) { h.EnableHTTP2 = true; h.StartTLS() },
	} {
		h := makeHost(t, accept)
		start(h)
		g, err := NewGemini(h.URL, false)
		if err != nil {
			t.Fatal(err)
		}
		g.client.Transport.(*http.Transport).TLSClientConfig = h.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		ask := func() {
			if a := g.Probe(t.Context(), secret.New([]byte(canary))); a.Kind != Accepted {
				t.Errorf("%s: %+v", version, a)
			}
		}
		var atOnce sync.WaitGroup
		for range 3 {
			ask()
			atOnce.Go(ask)
		}
		atOnce.Wait()
		if requests, n := h.seen(); n != 6 || requests[0].Proto != version {
			t.Errorf("six probes took %d connections of %s, want six of %s", n, requests[0].Proto, version)
		}
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	other := newHost(t, accept)
	h := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/v1beta/models", http.StatusTemporaryRedirect)
	})
	if a := probe(t, h.URL); a.Kind != Unknown {
		t.Errorf("%+v", a)
	}
	if requests, _ := other.seen(); len(requests) != 0 {
		t.Error("the key went to another host")
	}
}

func TestWhoCantBeReachedSaysNothingOfTheKey(t *testing.T) {
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "http://" + closed.Addr().String()
	closed.Close()
	broken := newHost(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	untrusted := httptest.NewTLSServer(http.HandlerFunc(accept))
	untrusted.Config.ErrorLog = log.New(io.Discard, "", 0)
	defer untrusted.Close()
	x509.SystemCertPool() // read now: with the race detector that takes a slow machine more time than a probe has
	for host, want := range map[string]string{
		refused:       "no connection",
		broken.URL:    "the connection broke",
		untrusted.URL: "not trusted",
	} {
		a := probe(t, host)
		if a.Kind != Unknown || !strings.Contains(a.Reason, want) {
			t.Errorf("%s: %+v, want %q", host, a, want)
		}
		if again := probe(t, host); again.Reason != a.Reason {
			t.Errorf("the same failure is told in other words: %q, then %q", a.Reason, again.Reason)
		}
	}
	if a := unreached(&url.Error{Op: "Get", URL: refused, Err: &net.DNSError{Name: "example.com"}}); !strings.Contains(a.Reason, "resolved") {
		t.Errorf("a name that nobody knows: %+v", a)
	}
}

func TestAnEndedContextEndsAProbe(t *testing.T) {
	release := make(chan struct{})
	h := newHost(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-r.Context().Done():
		case <-release:
		}
	})
	defer close(release)
	g, err := NewGemini(h.URL, false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if a := g.Probe(ctx, secret.New([]byte(canary))); a.Kind != Unknown || a.Reason != "no answer in time" {
		t.Errorf("%+v", a)
	}
}

func TestOnlyAnEndpointThatKeepsTheKeyIsTaken(t *testing.T) {
	for url, allowed := range map[string]bool{
		"": true, "https://generativelanguage.googleapis.com": true, "https://example.com/prefix/": true,
		"http://127.0.0.1:8080": true, "http://localhost:1": true, "http://[::1]:1": true,
		"http://example.com": false, "http://10.0.0.1": false, "example.com": false, "ftp://example.com": false, "://": false,
		"https://user:" + canary + "@example.com": false, "https://example.com?key=" + canary: false, "https://example.com#" + canary: false,
	} {
		_, err := NewGemini(url, false)
		if (err == nil) != allowed {
			t.Errorf("%q: %v", url, err)
		}
		if err != nil && strings.Contains(err.Error(), canary) {
			t.Errorf("the error shows what was configured: %v", err)
		}
	}
	if _, err := NewGemini("http://example.com", true); err != nil {
		t.Errorf("plain http was allowed by name: %v", err)
	}
}

func TestProbesLeaveNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	h := newHost(t, accept)
	for range 5 {
		probe(t, h.URL)
	}
	h.Close()
	goleak.VerifyNone(t, before)
}
