package gate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// Kind is what an Answer says about a key.
type Kind int

// Kinds of answers.
const (
	Unknown  Kind = iota // nothing: Gemini was not reached, is overloaded, or answers with something else
	Accepted             // the key works
	Refused              // the key is bad
	Blocked              // the key is known, but its project or the API is refused
)

// Answer is what Gemini said.
type Answer struct {
	Kind Kind
	// Reason is a reason code, a status or an error's text; it never holds a key.
	Reason string
	// RetryAfter is how long Gemini asked to be left alone; 0 if it didn't.
	RetryAfter time.Duration
}

// DefaultBaseURL is where Google serves the Gemini API (ai.google.dev/api).
const DefaultBaseURL = "https://generativelanguage.googleapis.com"

// probeTimeout bounds one probe.
const probeTimeout = 5 * time.Second

// Gemini is a Prober that asks for a list of one model, which is authenticated and costs no quota.
type Gemini struct {
	url           string
	pooled, fresh *http.Client
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
	return &Gemini{
		url:    strings.TrimRight(baseURL, "/") + "/v1beta/models?pageSize=1",
		pooled: client(false),
		fresh:  client(true),
	}, nil
}

// Close closes the idle connections.
func (g *Gemini) Close() { g.pooled.CloseIdleConnections() }

func client(fresh bool) *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.DisableKeepAlives = fresh
	transport.MaxIdleConns = 2
	return &http.Client{
		Transport: transport,
		Timeout:   probeTimeout,
		// The key goes to the API's host alone.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Probe implements Prober.
func (g *Gemini) Probe(ctx context.Context, key secret.Value, fresh bool) Answer {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.url, nil)
	if err != nil {
		return Answer{Reason: "the request can't be made"}
	}
	request.Header.Set("X-Goog-Api-Key", string(key.Reveal()))
	c := g.pooled
	if fresh {
		c = g.fresh
	}
	response, err := c.Do(request)
	if err != nil {
		return Answer{Reason: plain(err)}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		return Answer{Reason: plain(err)}
	}
	answer := classify(response.StatusCode, body)
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && seconds > 0 {
		answer.RetryAfter = time.Duration(seconds) * time.Second
	}
	return answer
}

// plain returns what went wrong without the URL.
func plain(err error) string {
	if e, ok := errors.AsType[*url.Error](err); ok {
		if e.Timeout() {
			return "no answer in time"
		}
		err = e.Err
	}
	return err.Error()
}

// Messages of refusals that come without details, as they were seen in the field.
const (
	leaked = "Your API key was reported as leaked. Please use another API key."
	denied = "Your project has been denied access. Please contact support."
)

// classify says what an answer of the API tells about the key: by its reason code, then by its status, then, for a 403
// without details, by its exact message. What it doesn't know tells nothing.
func classify(status int, body []byte) Answer {
	if status == http.StatusOK {
		return Answer{Kind: Accepted}
	}
	var doc struct {
		Error struct {
			Message string
			Status  string
			Details []struct{ Reason string }
		}
	}
	json.Unmarshal(body, &doc) // what is no JSON has no reason
	reason := ""
	for _, d := range doc.Error.Details {
		if d.Reason != "" {
			reason = d.Reason
			break
		}
	}
	said := fmt.Sprintf("HTTP %d", status)
	if known(reason) {
		said += " " + reason
	}
	return Answer{Kind: kind(status, reason, doc.Error.Status, doc.Error.Message), Reason: said}
}

func kind(status int, reason, code, message string) Kind {
	switch {
	case slices.Contains(badKey, reason), status == http.StatusUnauthorized, status == http.StatusForbidden && message == leaked:
		return Refused
	case status == http.StatusForbidden, status == http.StatusBadRequest && code == "FAILED_PRECONDITION":
		return Blocked
	case slices.Contains(blocked, reason), message == denied:
		return Blocked
	}
	return Unknown
}

// Reason codes of google.rpc.ErrorInfo (cloud.google.com/apis/design/errors; googleapis/google/api/error_reason.proto).
var (
	badKey  = []string{"API_KEY_INVALID", "CONSUMER_SUSPENDED", "ACCESS_TOKEN_TYPE_UNSUPPORTED", "CONSUMER_INVALID"}
	blocked = []string{"SERVICE_DISABLED", "API_KEY_SERVICE_BLOCKED", "API_KEY_IP_ADDRESS_BLOCKED", "API_KEY_HTTP_REFERRER_BLOCKED",
		"API_KEY_ANDROID_APP_BLOCKED", "API_KEY_IOS_APP_BLOCKED"}
)

// known keeps free text, which could hold a key, out of what is logged.
func known(reason string) bool {
	return slices.Contains(badKey, reason) || slices.Contains(blocked, reason)
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
	return err == nil && net.IP(ip.AsSlice()).IsLoopback()
}
