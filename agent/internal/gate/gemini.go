package gate

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// DefaultBaseURL is where Google serves the Gemini API (ai.google.dev/api).
const DefaultBaseURL = "https://generativelanguage.googleapis.com"

// probeTimeout bounds one probe.
const probeTimeout = 5 * time.Second

// Gemini is a Prober that asks for a list of one model, which is authenticated and costs no quota. It is safe for concurrent use.
//
// Rejected: a pool of connections. One that went silent while it lay there, as behind a firewall that forgot it, would say
// nothing of a bad key, which is then published; and an answer over it is another one of the same front end.
type Gemini struct {
	url    string
	client *http.Client
}

// NewGemini returns a prober for the API at baseURL; "" is Google's. The URL must be https, or plain http to loopback, or
// plain http anywhere if allowHTTP is set, without userinfo, query and fragment; an error says which it isn't.
func NewGemini(baseURL string, allowHTTP bool) (*Gemini, error) {
	if baseURL == "" {
		baseURL = DefaultBaseURL
	}
	if err := checkEndpoint(baseURL, allowHTTP); err != nil {
		return nil, err
	}
	return &Gemini{strings.TrimRight(baseURL, "/") + "/v1beta/models?pageSize=1", client()}, nil
}

func client() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = true
	return &http.Client{
		Transport: transport,
		Timeout:   probeTimeout,
		// The key goes to the API's host alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Probe implements Prober.
func (g *Gemini) Probe(ctx context.Context, key secret.Value) Answer {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url, nil)
	if err != nil {
		return Answer{Kind: Unknown, Reason: "the request can't be made"}
	}
	request.Header.Set("X-Goog-Api-Key", string(key.Reveal()))
	response, err := g.client.Do(request)
	if err != nil {
		return unreached(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return unreached(err)
	}
	return classify(response.StatusCode, response.Header, body)
}

// unreached says why there is no answer. It repeats no text that came over the network, nor one that names a local port,
// which would be news at each attempt.
func unreached(err error) Answer {
	operation, _ := errors.AsType[*net.OpError](err)
	_, isDNS := errors.AsType[*net.DNSError](err)
	_, isCertificate := errors.AsType[*tls.CertificateVerificationError](err)
	timeout, isNet := errors.AsType[net.Error](err)
	reason := "the connection broke"
	switch {
	case isDNS:
		reason = "its name can't be resolved: check DNS"
	case isCertificate:
		reason = "its certificate is not trusted: check the CA files, and any proxy on the way"
	case errors.Is(err, context.DeadlineExceeded), isNet && timeout.Timeout():
		reason = "no answer in time"
	case operation != nil && operation.Op == "proxyconnect":
		reason = "no connection to the proxy"
	case operation != nil && operation.Op == "dial":
		reason = "no connection: check that it may be reached from here"
	}
	return Answer{Kind: Unknown, Reason: reason}
}

func checkEndpoint(raw string, allowHTTP bool) error {
	u, err := url.Parse(raw)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https":
		return errors.New("is not a URL: write it like https://host")
	case u.User != nil:
		return errors.New("holds a user or password: write it without")
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		return errors.New("has a query or fragment: write it without")
	case u.Scheme == "http" && !allowHTTP && !loopback(u.Hostname()):
		return errors.New("is plain http, so the key could be read on the way: use https, or set AGENT_ALLOW_HTTP=true")
	}
	return nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.IsLoopback()
}
