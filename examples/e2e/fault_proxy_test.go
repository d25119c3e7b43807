package e2e

import (
	"bytes"
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/porttest"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

// buildAs builds the package pkg, as seen from dir, to a program of that name, once a test run.
func (p *programs) buildAs(t testing.TB, name, dir, pkg string, args ...string) string {
	t.Helper()
	p.build(t, "agent") // which makes the directory
	p.mu.Lock()
	defer p.mu.Unlock()
	if path := p.built[name]; path != "" {
		return path
	}
	path := filepath.Join(p.dir, name)
	cmd := exec.CommandContext(t.Context(), "go", append(append([]string{"build", "-o", path}, args...), pkg)...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", name, err, out)
	}
	p.built[name] = path
	return path
}

// faultProxy is a TCP proxy that breaks connections as it is told to: one of Toxiproxy's, in a process of its own.
type faultProxy struct {
	api    string // of this proxy
	listen string
}

func newFaultProxy(t testing.TB, upstream string) *faultProxy {
	t.Helper()
	p := start(t, ours.buildAs(t, "faultproxy", filepath.Join("..", "faultproxy"), "."), nil)
	eventually(t, "the fault proxy listens", func() bool { return strings.HasSuffix(p.stderr.String(), "\n") })
	api := strings.TrimSpace(p.stderr.String()) + "/proxies"
	var made struct{ Listen string }
	body := proxyCall(t, http.MethodPost, api, map[string]any{"name": "vault", "listen": porttest.Loopback(t), "upstream": upstream, "enabled": true})
	if err := json.Unmarshal(body, &made); err != nil {
		t.Fatal(err)
	}
	return &faultProxy{api + "/vault", made.Listen}
}

// add puts a toxic between the agent and Vault, on what Vault answers.
func (p *faultProxy) add(t testing.TB, kind string, attributes map[string]any) {
	t.Helper()
	proxyCall(t, http.MethodPost, p.api+"/toxics", map[string]any{"name": "toxic", "type": kind, "stream": "downstream", "attributes": attributes})
}

func (p *faultProxy) remove(t testing.TB) {
	t.Helper()
	proxyCall(t, http.MethodDelete, p.api+"/toxics/toxic", nil)
}

// listens decides whether there is a listener. Without one all connections are closed.
func (p *faultProxy) listens(t testing.TB, yes bool) {
	t.Helper()
	proxyCall(t, http.MethodPost, p.api, map[string]any{"enabled": yes})
}

func proxyCall(t testing.TB, method, url string, body any) []byte {
	t.Helper()
	b := must[[]byte](t)(json.Marshal(body))
	request := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(b)))
	response := must[*http.Response](t)(http.DefaultClient.Do(request))
	defer response.Body.Close()
	var answer bytes.Buffer
	if _, err := answer.ReadFrom(response.Body); err != nil || response.StatusCode >= 300 {
		t.Fatalf("the fault proxy answers %s %s with %d (%v): %s", method, url, response.StatusCode, err, &answer)
	}
	return answer.Bytes()
}

// front stands before Vault, counts what arrives there, and answers in its stead when it is told to.
type front struct {
	host string
	next http.Handler

	mu       sync.Mutex
	instead  http.HandlerFunc
	arrivals []time.Time
	urls     strings.Builder
	tokens   map[string]bool // that came with the requests
}

func newFront(t testing.TB, v *vaulttest.Server) *front {
	t.Helper()
	f := &front{tokens: map[string]bool{}, next: &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(must[*url.URL](t)(url.Parse(v.Addr))) },
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) {
			panic(http.ErrAbortHandler) // as if nothing stood between
		},
	}}
	server := httptest.NewServer(f)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	f.host = server.Listener.Addr().String()
	return f
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.arrivals = append(f.arrivals, time.Now())
	f.urls.WriteString(r.RequestURI + "\n")
	if token := r.Header.Get("X-Vault-Token"); token != "" {
		f.tokens[token] = true
	}
	next := f.next
	if f.instead != nil {
		next = f.instead
	}
	f.mu.Unlock()
	next.ServeHTTP(w, r)
}

// answer makes h answer in Vault's stead; nil: Vault does.
func (f *front) answer(h http.HandlerFunc) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.instead = h
}

// requests returns how many have arrived within a time; to is open.
func (f *front) requests(from, to time.Time) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, at := range f.arrivals {
		if !at.Before(from) && at.Before(to) {
			n++
		}
	}
	return n
}

// seen returns the URLs of all requests.
func (f *front) seen() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.urls.String()
}

// given returns all tokens that came with requests.
func (f *front) given() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Collect(maps.Keys(f.tokens))
}

// busiest returns the most requests that have arrived within any second that lies in a time.
func (f *front) busiest(from, to time.Time) (most int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	first := 0
	for i, at := range f.arrivals {
		for f.arrivals[first].Before(from) && first < i || at.Sub(f.arrivals[first]) >= time.Second {
			first++
		}
		if !at.Before(from) && at.Before(to) {
			most = max(most, i-first+1)
		}
	}
	return most
}
