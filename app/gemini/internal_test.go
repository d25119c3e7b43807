package gemini

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/app/keyfile"
)

const canary = "AQ.Ab8RN6-canary_key.must-not-leak"

func newKey(t testing.TB, s string) keyfile.Key {
	t.Helper()
	key, err := keyfile.NewKey([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// roundTrip is a transport that is a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func TestTheCarrierSendsTheKeyToTheEndpointOnly(t *testing.T) {
	tests := []struct{ endpoint, url, host, want string }{
		{"https://example.com", "https://example.com/v1beta/models", "", "sent"},
		{"https://example.com", "https://example.com:443/v1beta/models", "", "sent"},
		{"https://example.com:443", "https://EXAMPLE.com/v1beta/models", "", "sent"},
		{"http://[::1]:80", "http://[::1]/v1beta/models", "", "sent"},
		{"https://example.com", "http://example.com/v1beta/models", "", "refused"},
		{"https://example.com", "https://example.com:8443/v1beta/models", "", "refused"},
		{"https://example.com", "https://example.com.evil.test/v1beta/models", "", "refused"},
		{"https://example.com", "https://other.test/v1beta/models", "", "refused"},
		{"https://example.com", "https://example.com/v1beta/models", "other.test", "refused"},
		{"http://127.0.0.1:1", "http://127.0.0.1:2/v1beta/models", "", "refused"},
	}
	for _, test := range tests {
		base, err := parseEndpoint(test.endpoint, false)
		if err != nil {
			t.Fatal(err)
		}
		got := "refused"
		c := &carrier{closed: new(atomic.Bool), scheme: base.Scheme, host: hostPort(base),
			next: roundTrip(func(r *http.Request) (*http.Response, error) {
				got = "sent"
				return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
			})}
		ctx := (&call{key: newKey(t, canary)}).context(t.Context())
		r, err := http.NewRequestWithContext(ctx, "POST", test.url, strings.NewReader("{}"))
		if err != nil {
			t.Fatal(err)
		}
		if test.host != "" {
			r.Host = test.host
		}
		if _, err = c.RoundTrip(r); (err == nil) != (got == "sent") || got != test.want || err != nil && !errors.Is(err, errOtherHost) {
			t.Errorf("%s for %s (Host %q): %s, %v; want %s", test.url, test.endpoint, test.host, got, err, test.want)
		}
	}
}

func TestTheCarrierLeavesOneCredentialAndTheRequestAsItWas(t *testing.T) {
	var sent *http.Request
	c := &carrier{closed: new(atomic.Bool), scheme: "https", host: "example.com 443",
		next: roundTrip(func(r *http.Request) (*http.Response, error) {
			sent = r
			return &http.Response{StatusCode: 200, Body: http.NoBody}, nil
		})}
	const address = "https://example.com/v1beta/models?%24alt=json%3Benum-encoding%3Dint&key=placeholder&pageSize=1"
	r, err := http.NewRequestWithContext((&call{key: newKey(t, canary)}).context(t.Context()), "GET", address, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer placeholder")
	r.Header.Set("x-goog-api-key", "placeholder")
	if _, err := c.RoundTrip(r); err != nil {
		t.Fatal(err)
	}
	if got := sent.URL.RawQuery; got != "%24alt=json%3Benum-encoding%3Dint&pageSize=1" {
		t.Errorf("query: %s", got)
	}
	if v := sent.Header.Values(keyHeader); len(v) != 1 || v[0] != canary || sent.Header.Get("Authorization") != "" {
		t.Errorf("headers: %v", sent.Header)
	}
	if r.URL.String() != address || r.Header.Get(keyHeader) != "placeholder" {
		t.Errorf("the caller's request was changed: %v %v", r.URL, r.Header)
	}
	if _, err := c.RoundTrip(r.WithContext(context.Background())); !errors.Is(err, errNoCall) {
		t.Errorf("a request without a call: %v", err)
	}
}

func TestAnSDKsOwnRequestWithoutAKeyIsNotSent(t *testing.T) {
	api := geminitest.NewServer()
	defer api.Close()
	for _, sdk := range SDKs() {
		b, err := New(t.Context(), Config{SDK: sdk, BaseURL: api.URL})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.engine.generate(t.Context(), "hello"); !errors.Is(err, errNoCall) {
			t.Errorf("%s: %v", sdk, err)
		}
	}
	if _, total := api.Connections(); total != 0 {
		t.Errorf("%d connections were made", total)
	}
}

func TestOverTLSAllKeysShareOneHTTP2Connection(t *testing.T) {
	for _, sdk := range SDKs() {
		api := geminitest.New()
		var connections sync.Map
		host := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			connections.Store(r.RemoteAddr+" "+r.Proto, true)
			api.Handler().ServeHTTP(w, r)
		}))
		host.EnableHTTP2 = true
		host.StartTLS()
		b, err := New(t.Context(), Config{SDK: sdk, BaseURL: host.URL})
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AddCert(host.Certificate())
		b.pool.TLSClientConfig = &tls.Config{RootCAs: roots}
		for i := range 20 {
			name := strings.Repeat("k", i+1)
			api.Add(name)
			client := b.Client(newKey(t, name))
			if _, err := client.Generate(t.Context(), "hello"); err != nil {
				t.Fatal(err)
			}
			for _, err := range client.Stream(t.Context(), "hello") {
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		connections.Range(func(k, _ any) bool {
			if !strings.HasSuffix(k.(string), " HTTP/2.0") {
				t.Errorf("%s: %v", sdk, k)
			}
			return true
		})
		n := 0
		connections.Range(func(_, _ any) bool { n++; return true })
		if n != 1 {
			t.Errorf("%s: %d connections, want 1", sdk, n)
		}
		b.Close()
		host.Close()
	}
}

func TestTheTailFindsAnErrorHoweverTheBodyIsCut(t *testing.T) {
	const failure = `{ "error" : {"code": 429, "message": "wait {\"a\\", "status": "RESOURCE_EXHAUSTED"}}`
	const piece = `{"candidates":[{"content":{"parts":[{"text":"\"error\": { }}} \\"}]}}]}`
	large := `{"text":"` + strings.Repeat(`\"error\"{`, maxElement/8) + `"}`
	bodies := map[string]bool{
		"[" + piece + ",\r\n" + failure + "]":         true,
		"data: " + piece + "\r\n\r\ndata: " + failure: true,
		failure:                                               true,
		"[" + failure + "," + piece + "]":                     true,
		"[" + large + "," + failure + "]":                     true,
		"[" + piece + "," + piece + "]":                       false,
		"[" + piece + "," + failure[:len(failure)-1]:          false,
		`}}}]"` + failure:                                     true,
		"<html>" + piece:                                      false,
		"[" + `{"error":null}` + "," + `{"error":"no"}` + "]": false,
	}
	for body, want := range bodies {
		for _, size := range []int{1, 2, 3, 7, 64, len(body)} {
			tail := new(tail)
			r := tail.watch(io.NopCloser(strings.NewReader(body)))
			buffer := make([]byte, size)
			for err := error(nil); err == nil; {
				_, err = r.Read(buffer)
			}
			if got := tail.failure != nil; got != want {
				t.Errorf("in reads of %d bytes: found %v, want %v: %.100s", size, got, want, body)
			}
			if tail.failure != nil && tail.failure.status() != 429 {
				t.Errorf("status %d", tail.failure.status())
			}
			if cap(tail.element) > 2*maxElement {
				t.Errorf("it kept %d bytes", cap(tail.element))
			}
		}
	}
}
