package server

import (
	"context"
	"errors"
	"net/http"
	"strconv"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
)

// Problem is a problem document (RFC 9457), sent as application/problem+json.
type Problem struct {
	// Type is about:blank where the status says it all; otherwise [TypePrefix] and one of
	//
	//	no-key           503  no key has been read yet
	//	key-refused      503  Gemini refuses every key at hand
	//	quota            429  the project's quota is used up, whatever the key
	//	configuration    502  a person has to set up the project or the API
	//	request-refused  4xx  Gemini refuses the prompt: its own status, or 422 for a blocked prompt or answer
	//	unavailable      502  Gemini can't be reached or understood; 503 or 504 if it says so itself
	//	truncated        502  the answer broke off
	//	timeout          504  the answer took longer than this service waits
	//	overload         503  as many calls run, or look at /metrics, as this instance has memory for
	//	stopping         503  this instance stops
	//	internal         500  a fault of this service; its log says more
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	// Reason is Google's own constant, such as RESOURCE_EXHAUSTED or SAFETY.
	Reason string `json:"reason,omitempty"`
	// RetryAfter is in seconds, and is the header Retry-After as well: a stream that has begun has no more headers.
	RetryAfter int `json:"retry_after,omitempty"`

	outcome outcome
}

// TypePrefix begins the type of every problem that is this service's own. It is a tag (RFC 4151): a name, no address.
const TypePrefix = "tag:keyturn.github.io,2026:"

// outcome is how a request went. It is a label of keyturn_app_requests_total and, for a problem, the end of its type.
type outcome string

const (
	succeeded     outcome = "ok"
	gone          outcome = "gone"    // the caller left
	invalid       outcome = "invalid" // never sent to Gemini
	noKey         outcome = "no-key"
	keyRefused    outcome = "key-refused"
	quota         outcome = "quota"
	configuration outcome = "configuration"
	refused       outcome = "request-refused"
	unavailable   outcome = "unavailable"
	truncated     outcome = "truncated"
	timeout       outcome = "timeout"
	overload      outcome = "overload"
	stopping      outcome = "stopping"
	internal      outcome = "internal"
)

var outcomes = []outcome{succeeded, gone, invalid, noKey, keyRefused, quota, configuration, refused, unavailable, truncated,
	timeout, overload, stopping, internal}

var titles = map[outcome]string{
	noKey:         "There is no key yet",
	keyRefused:    "Gemini refuses the key",
	quota:         "The quota is used up",
	configuration: "Gemini is not set up for this",
	refused:       "Gemini refuses the request",
	unavailable:   "Gemini is unavailable",
	truncated:     "The answer broke off",
	timeout:       "The answer takes too long",
	overload:      "Too much at once",
	stopping:      "This instance stops",
	internal:      "Internal error",
}

// keyWait is when to ask again if there is no key that serves: a newer one may come at any moment.
const keyWait = 2 * time.Second

// errStopping is the cause of contexts that end because the server does.
var errStopping = errors.New("the server stops")

// plain is a problem with the request itself.
func plain(status int, detail string) *Problem {
	return &Problem{Type: "about:blank", Title: http.StatusText(status), Status: status, Detail: detail, outcome: invalid}
}

func problem(o outcome, status int, detail string, wait time.Duration) *Problem {
	return &Problem{Type: TypePrefix + string(o), Title: titles[o], Status: status, Detail: detail,
		RetryAfter: int((wait + time.Second - 1) / time.Second), outcome: o}
}

// send answers with p.
func (p *Problem) send(w http.ResponseWriter) {
	if p.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(p.RetryAfter))
	}
	send(w, p.Status, "application/problem+json", p)
}

// judge says what to tell of err, with which a call ended whose context was ctx.
func (s *Server) judge(ctx context.Context, err error) *Problem {
	cause := context.Cause(ctx)
	failure, ok := errors.AsType[*gemini.Error](err)
	switch {
	case errors.Is(cause, context.Canceled):
		return &Problem{outcome: gone}
	case errors.Is(err, client.ErrNoKey):
		return problem(noKey, http.StatusServiceUnavailable, "no valid key has been read yet; /readyz says what it waits for", keyWait)
	case errors.Is(err, client.ErrRefused):
		return allRefused()
	case ok:
		p := judgeFault(failure)
		if p.outcome == configuration || p.outcome == unavailable {
			s.troubles.failed(p.outcome, failure)
		}
		return p
	case errors.Is(cause, errStopping), errors.Is(err, gemini.ErrClosed):
		return problem(stopping, http.StatusServiceUnavailable, "this instance was told to stop; ask another", time.Second)
	case errors.Is(err, context.DeadlineExceeded):
		return problem(timeout, http.StatusGatewayTimeout, "the answer was not complete after "+s.Call.String(), 0)
	}
	s.Log.Error("a call failed in a way that the app doesn't know", "error", err)
	return problem(internal, http.StatusInternalServerError, "the call failed in a way that this service doesn't know", 0)
}

func allRefused() *Problem {
	return problem(keyRefused, http.StatusServiceUnavailable,
		"Gemini refuses every key that is at hand; it goes on by itself once a key that Gemini accepts is in the file", keyWait)
}

// judgeFault says what to tell of Gemini's own error. Its words are for the caller if they are about his prompt or his share;
// else they are for the log (see [troubles]).
func judgeFault(e *gemini.Error) *Problem {
	detail := e.Message
	if detail == "" {
		detail = e.Error()
	}
	var p *Problem
	switch e.Fault {
	case gemini.FaultKey:
		return allRefused()
	case gemini.FaultQuota:
		p = problem(quota, http.StatusTooManyRequests, detail, e.RetryAfter)
	case gemini.FaultConfig:
		p = problem(configuration, http.StatusBadGateway, "a person has to set up the project or the API; the app's log says why", 0)
	case gemini.FaultRequest:
		p = problem(refused, requestStatus(e.Status), detail, 0)
	case gemini.FaultTruncated:
		p = problem(truncated, http.StatusBadGateway, detail, 0)
	default:
		p = problem(unavailable, unavailableStatus(e.Status), "Gemini can't be reached or understood; the app's log says why", e.RetryAfter)
	}
	p.Reason = e.Reason
	return p
}

// requestStatus passes Gemini's own status on. One that is no 4xx comes with a blocked prompt or answer; none at all is a
// prompt that wasn't sent.
func requestStatus(status int) int {
	switch {
	case status == 0:
		return http.StatusBadRequest
	case status >= 400 && status <= 499:
		return status
	}
	return http.StatusUnprocessableEntity
}

func unavailableStatus(status int) int {
	switch status {
	case http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return status
	case http.StatusRequestTimeout:
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}
