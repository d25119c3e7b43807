package vault

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/vault/api"
)

const (
	// requestTimeout bounds a request and its answer unless VAULT_CLIENT_TIMEOUT does.
	requestTimeout = 10 * time.Second
	// maxAnswer bounds what is read of an answer. Vault takes in 1 MiB a secret unless told otherwise.
	maxAnswer = 4 << 20
	// idleConnections is how many readers find a connection ready.
	idleConnections = 16
)

// client sends requests the way VAULT_* say. It holds no token: each request brings its own.
type client struct {
	api       *api.Client
	transport *http.Transport
	timeout   time.Duration
	hedging   chan struct{} // capacity one: see insist
}

// newClient reads the environment and the certificate files that it names.
func newClient() (*client, error) {
	transport := newTransport()
	config := &api.Config{
		Address: api.DefaultAddress,
		HttpClient: &http.Client{
			Transport: transport,
			// vault/api follows redirects itself, at most one and none from https to http.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		Timeout: requestTimeout,
	}
	if err := config.ReadEnvironment(); err != nil { // leaves Timeout alone unless VAULT_CLIENT_TIMEOUT is set
		return nil, environmentError(err)
	}
	if config.Timeout < time.Millisecond {
		return nil, errors.New("VAULT_CLIENT_TIMEOUT leaves no time for an answer: write it like 10s")
	}
	if !usable(transport.Proxy) {
		return nil, errors.New("VAULT_PROXY_ADDR or VAULT_HTTP_PROXY is not the URL of a proxy: write http://HOST:PORT")
	}
	if transport.Proxy == nil {
		transport.Proxy = http.ProxyFromEnvironment
	}
	c := &client{transport: transport, timeout: config.Timeout, hedging: make(chan struct{}, 1)}
	config.Timeout = 0    // vault/api would leave a timer behind for each request
	config.MaxRetries = 0 // turn owns time
	made, err := api.NewClient(config)
	if err != nil {
		return nil, environmentError(err)
	}
	address, err := url.Parse(made.Address())
	if err != nil || address.Host == "" || address.Scheme != "http" && address.Scheme != "https" {
		return nil, errors.New("VAULT_ADDR is not a URL: write https://HOST:8200")
	}
	made.ClearToken()                              // NewClient takes VAULT_TOKEN up
	config.HttpClient.Transport = bound{transport} // vault/api insists on an *http.Transport until here
	c.api = made
	return c, nil
}

// usable reports whether a connection can go by the proxy that VAULT_* name, if they name one. One that is written without
// its scheme is a URL, but none that leads anywhere.
func usable(proxy func(*http.Request) (*url.URL, error)) bool {
	if proxy == nil {
		return true
	}
	u, err := proxy(nil)
	return err == nil && u.Host != "" && slices.Contains([]string{"http", "https", "socks5", "socks5h"}, u.Scheme)
}

// newTransport returns one without a proxy.
func newTransport() *http.Transport {
	return &http.Transport{
		DialContext:            (&net.Dialer{Timeout: requestTimeout, KeepAlive: 15 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    requestTimeout,
		ExpectContinueTimeout:  time.Second,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConns:           idleConnections,
		MaxIdleConnsPerHost:    idleConnections,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
		// HTTP/2 would put all readers on one connection, which a lost packet stops for all of them.
	}
}

// environmentError says which variable can't work, without its value: a proxy's address may hold a password, and a key may
// stand where its path belongs.
func environmentError(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("VAULT_CAPATH, VAULT_CLIENT_CERT or VAULT_CLIENT_KEY leads to nothing that can be read (%w): write a path there", e.Err)
	}
	if _, ok := errors.AsType[*url.Error](err); ok {
		return errors.New("VAULT_ADDR, VAULT_AGENT_ADDR or VAULT_PROXY_ADDR is not a URL: write https://HOST:8200")
	}
	if strings.HasPrefix(err.Error(), "could not parse") { // vault/api's own, with the variable's name alone
		return err
	}
	return errors.New("one of VAULT_CACERT, VAULT_CACERT_BYTES, VAULT_CLIENT_CERT, VAULT_CLIENT_KEY, VAULT_HEADERS, VAULT_MAX_RETRIES, " +
		"VAULT_RATE_LIMIT, VAULT_DISABLE_REDIRECTS can't be understood: mend or unset it")
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// request is one question to Vault.
type request struct {
	method, path string
	params       url.Values
	token        string
	body         map[string]string
	// again: it changes nothing in Vault, so it may be put again while its answer is late.
	again bool
}

// do sends a request and returns the answer's body, which the caller clears. Its error is ctx's own or a *failure.
func (c *client) do(ctx context.Context, q request) ([]byte, error) {
	bounded, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	send := c.send
	if q.again {
		send = c.hedged
	}
	body, err := send(bounded, q)
	if err != nil && ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return body, err
}

// send makes one attempt at a request.
func (c *client) send(ctx context.Context, q request) ([]byte, error) {
	r := c.api.NewRequest(q.method, "/v1/"+q.path)
	r.ClientToken = q.token
	if q.params != nil {
		r.Params = q.params
	}
	if q.body != nil {
		if r.SetJSONBody(q.body) != nil {
			return nil, unavailable("the request can't be made")
		}
		defer clear(r.BodyBytes)
	}
	//lint:ignore SA1019 what replaces it decodes through maps of strings, and those can't be cleared
	response, err := c.api.RawRequestWithContext(ctx, r)
	if response != nil && response.Body != nil {
		defer response.Body.Close()
	}
	if err == nil {
		var body []byte
		if body, err = readAll(response); err == nil {
			return body, nil
		}
		clear(body)
	}
	return nil, c.failed(response, err)
}

// ask is do for an answer that is small and fits into a struct.
func (c *client) ask(ctx context.Context, q request, into any) error {
	body, err := c.do(ctx, q)
	defer clear(body)
	if err != nil || into == nil {
		return err
	}
	if json.Unmarshal(body, into) != nil {
		return notVault()
	}
	return nil
}

// readAll reads a body, and leaves no half-grown copies of it behind.
func readAll(r *api.Response) ([]byte, error) {
	body := make([]byte, 0, min(max(r.ContentLength, 1<<10), maxAnswer)+1)
	for {
		n, err := r.Body.Read(body[len(body):cap(body)])
		body = body[:len(body)+n]
		if err == io.EOF {
			return body, nil
		}
		if err != nil {
			return body, err
		}
		if len(body) == cap(body) {
			grown := append(make([]byte, 0, 4*cap(body)), body...)
			clear(body)
			body = grown
		}
	}
}

var errTooLong = errors.New("the answer is longer than 4 MiB")

// bound is a transport whose answers end in errTooLong after maxAnswer bytes, where vault/api would read any number.
type bound struct{ next http.RoundTripper }

func (b bound) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.next.RoundTrip(r)
	if err == nil {
		response.Body = &boundBody{response.Body, maxAnswer}
	}
	return response, err
}

type boundBody struct {
	io.ReadCloser
	left int
}

func (b *boundBody) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, errTooLong
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left+1)])
	b.left -= n
	if b.left < 0 {
		return 0, errTooLong
	}
	return n, err
}
