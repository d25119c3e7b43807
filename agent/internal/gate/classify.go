package gate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Kind is what an Answer says about a key.
type Kind int

// Kinds of answers.
const (
	Unknown  Kind = iota // nothing: Gemini was not reached, is overloaded, or answers with something else
	Accepted             // the key works
	Blocked              // the key is known, but its project or the API is refused
	Refused              // the key is bad
)

// Answer is what Gemini said.
type Answer struct {
	Kind Kind
	// Reason is a reason code, a status or words of our own; it never holds a key, nor anything that differs between calls
	// that fail alike.
	Reason string
	// RetryAfter is how long Gemini asked to be left alone; 0 if it didn't.
	RetryAfter time.Duration
}

// The wording of refusals that come without details, as they were seen in the field.
const leaked = "Your API key was reported as leaked."

// Reason codes of google.api.ErrorReason that speak of the key, and of its project or the API (googleapis,
// google/api/error_reason.proto). Which answers are the key's fault is what the app goes by too, in its own words.
var (
	badKey  = []string{"API_KEY_INVALID", "CONSUMER_SUSPENDED", "ACCESS_TOKEN_TYPE_UNSUPPORTED"}
	blocked = []string{"SERVICE_DISABLED", "CONSUMER_INVALID", "BILLING_DISABLED", "USER_PROJECT_DENIED", "LOCATION_POLICY_VIOLATED",
		"SECURITY_POLICY_VIOLATED", "ORG_RESTRICTION_VIOLATION", "API_KEY_SERVICE_BLOCKED", "API_KEY_IP_ADDRESS_BLOCKED",
		"API_KEY_HTTP_REFERRER_BLOCKED", "API_KEY_ANDROID_APP_BLOCKED", "API_KEY_IOS_APP_BLOCKED"}
	quota = []string{"RATE_LIMIT_EXCEEDED", "RESOURCE_QUOTA_EXCEEDED"}
)

// apiError is the document that Google's APIs answer errors with (cloud.google.com/apis/design/errors).
type apiError struct {
	Message, Status string
	Details         []struct{ Reason, RetryDelay string }
}

// classify says what an answer of the API tells about the key: by its reason code, then by its status, then, for a 403
// without a reason, by its wording. What it doesn't know tells nothing.
func classify(status int, header http.Header, body []byte) Answer {
	if status == http.StatusOK {
		return accepted(body)
	}
	said := parse(body)
	answer := Answer{Kind: said.kindByStatus(status), Reason: fmt.Sprintf("HTTP %d", status), RetryAfter: retryAfter(header)}
	for _, d := range said.Details {
		if kind, known := kindOf(d.Reason); known {
			answer.Kind = kind
			answer.Reason += " " + d.Reason
			break
		}
	}
	for _, d := range said.Details {
		if delay, err := time.ParseDuration(d.RetryDelay); err == nil && answer.RetryAfter == 0 {
			answer.RetryAfter = clamp(delay)
		}
	}
	return answer
}

// accepted makes sure that it was the API that answered: whoever wants people to log in first answers 200 too.
func accepted(body []byte) Answer {
	var list struct{ Models []json.RawMessage }
	if json.Unmarshal(body, &list) != nil {
		return Answer{Kind: Unknown, Reason: "what answers is not the Gemini API: check for a proxy on the way"}
	}
	return Answer{Kind: Accepted}
}

// parse reads an error, which may come as the only element of an array. What is none is an empty one.
func parse(body []byte) (e apiError) {
	body = bytes.TrimSpace(body)
	if inner, ok := bytes.CutPrefix(body, []byte("[")); ok {
		body, _ = bytes.CutSuffix(inner, []byte("]"))
	}
	document := struct{ Error *apiError }{&e}
	if json.Unmarshal(body, &document) != nil {
		return apiError{}
	}
	return e
}

func kindOf(reason string) (kind Kind, known bool) {
	switch {
	case slices.Contains(badKey, reason):
		return Refused, true
	case slices.Contains(blocked, reason):
		return Blocked, true
	case slices.Contains(quota, reason):
		return Unknown, true
	}
	return Unknown, false
}

// kindByStatus judges what has no reason that we know. What is no document of Google's comes from something on the way.
func (e *apiError) kindByStatus(status int) Kind {
	switch {
	case e.Status == "":
		return Unknown
	case status == http.StatusUnauthorized, status == http.StatusForbidden && strings.HasPrefix(e.Message, leaked):
		return Refused
	case status == http.StatusForbidden, status == http.StatusBadRequest && e.Status == "FAILED_PRECONDITION":
		return Blocked
	}
	return Unknown
}

// maxRetryAfter bounds how long one answer can keep the gate from asking.
const maxRetryAfter = 5 * time.Minute

// retryAfter reads a Retry-After header, seconds or a date; 0 if there is none that makes sense.
func retryAfter(h http.Header) time.Duration {
	value := h.Get("Retry-After")
	if seconds, err := strconv.ParseUint(value, 10, 32); err == nil {
		return clamp(time.Duration(seconds) * time.Second)
	}
	if at, err := http.ParseTime(value); err == nil {
		return clamp(time.Until(at))
	}
	return 0
}

func clamp(d time.Duration) time.Duration { return min(max(d, 0), maxRetryAfter) }
