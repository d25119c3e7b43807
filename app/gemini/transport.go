package gemini

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/app/keyfile"
)

const (
	dialTimeout   = 10 * time.Second
	tlsTimeout    = 10 * time.Second
	headerTimeout = 5 * time.Minute // a whole answer may be thought out before its first byte; callers bound it further
	idleTimeout   = 90 * time.Second
	pingAfter     = 15 * time.Second // of silence on an HTTP/2 connection
	pingTimeout   = 15 * time.Second

	maxIdle      = 512             // per host, and there is one host: hundreds of calls at once keep their connections
	maxErrorBody = 64 << 10        // what is read of an answer that is not a success
	errorTimeout = 5 * time.Second // for how long it is read
)

const keyHeader = "X-Goog-Api-Key"

// newPool makes the connection pool that all keys share.
func newPool() *http.Transport {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	return &http.Transport{
		Proxy: func(r *http.Request) (*url.URL, error) {
			if r.URL.Scheme != "https" {
				return nil, nil // a proxy would read the key; through CONNECT it can't
			}
			return http.ProxyFromEnvironment(r)
		},
		DialContext:           dialer.DialContext,
		TLSHandshakeTimeout:   tlsTimeout,
		ResponseHeaderTimeout: headerTimeout,
		IdleConnTimeout:       idleTimeout,
		MaxIdleConns:          maxIdle,
		MaxIdleConnsPerHost:   maxIdle,
		ForceAttemptHTTP2:     true, // our own DialContext would turn it off
		HTTP2:                 &http.HTTP2Config{SendPingTimeout: pingAfter, PingTimeout: pingTimeout},
	}
}

// call is what one call of a client takes through the SDK to the carrier, within the request's context.
type call struct {
	key    keyfile.Key
	tail   *tail              // watches the body of a stream; nil for other calls
	status int                // of the answer, if it was a success
	cancel context.CancelFunc // of the request's context
}

type callKey struct{}

// context returns the context of the call's request, which the call's cancel ends.
func (c *call) context(ctx context.Context) context.Context {
	ctx, c.cancel = context.WithCancel(ctx)
	return context.WithValue(ctx, callKey{}, c)
}

// carrier is the transport beneath the SDK. It puts the call's key into the header of requests for the API's endpoint,
// refuses all others, and turns every answer that is not a success into an *Error. So no SDK sees a key or an error body.
type carrier struct {
	next         http.RoundTripper
	closed       *atomic.Bool
	scheme, host string // host in the form of hostPort
}

var (
	errNoCall    = errors.New("gemini: a request was made outside of a call; it was not sent")
	errOtherHost = errors.New("gemini: a request went to another host than the configured endpoint; it was not sent")
)

// RoundTrip implements http.RoundTripper.
func (c *carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	this, _ := r.Context().Value(callKey{}).(*call)
	if err := c.check(r, this); err != nil {
		if r.Body != nil {
			r.Body.Close()
		}
		return nil, err
	}
	response, err := c.next.RoundTrip(withKey(r, this.key))
	if err != nil {
		return nil, err
	}
	if response.StatusCode < 200 || response.StatusCode > 299 {
		return nil, this.refusal(response)
	}
	this.status = response.StatusCode // net/http runs this within the call's own goroutine
	if this.tail != nil {
		response.Body = this.tail.watch(response.Body)
	}
	return response, nil
}

func (c *carrier) check(r *http.Request, this *call) error {
	switch {
	case c.closed.Load():
		return ErrClosed
	case this == nil:
		return errNoCall
	case r.URL.Scheme != c.scheme || hostPort(r.URL) != c.host || r.Host != "" && r.Host != r.URL.Host:
		return errOtherHost
	case this.key.IsZero():
		return &Error{Fault: FaultConfig, Message: "there is no key"}
	}
	return nil
}

// withKey returns a copy of r that has the key in its header, and no other credential anywhere.
func withKey(r *http.Request, key keyfile.Key) *http.Request {
	r = r.Clone(r.Context())
	r.Header.Del("Authorization")
	r.Header.Set(keyHeader, key.Reveal())
	if q := r.URL.Query(); q.Has("key") {
		q.Del("key")
		r.URL.RawQuery = q.Encode()
	}
	return r
}

// refusal reads what is needed of an answer that is not a success. A redirect is one: following it could carry the key to
// another host.
func (c *call) refusal(response *http.Response) error {
	defer response.Body.Close()
	defer time.AfterFunc(errorTimeout, c.cancel).Stop() // or the caller would learn of it only when its time is over
	body, err := io.ReadAll(io.LimitReader(response.Body, maxErrorBody))
	if err != nil && parseError(body) == nil {
		body = nil // half a body is judged by its status
	}
	wait := parseRetryAfter(response.Header.Get("Retry-After"), time.Now())
	return classify(response.StatusCode, wait, body, c.key.Reveal())
}
