package gemini

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// wireError is the error object of google.rpc.Status in JSON. Code is not always a number, so it is read leniently.
type wireError struct {
	Code    json.RawMessage `json:"code"`
	Message string          `json:"message"`
	Status  string          `json:"status"`
	Details []struct {
		Reason     string `json:"reason"`
		RetryDelay string `json:"retryDelay"`
	} `json:"details"`
}

// classify turns an answer that is not a success into an *Error. wait is its Retry-After. The body may be anything, and is
// empty if it could not be read.
func classify(status int, wait time.Duration, body []byte, key string) *Error {
	if w := parseError(body); w != nil {
		return w.judge(status, wait, key)
	}
	fault := faultOfStatus(status, "", "")
	if status == http.StatusUnauthorized && len(bytes.TrimSpace(body)) == 0 {
		fault = FaultKey // it may have been Google's: nothing says otherwise
	}
	return &Error{Fault: fault, Status: status, Message: strangeAnswer(status), RetryAfter: wait}
}

// judge goes by the reason in the details, then by the status, then, for a 403 without a reason, by Google's wording.
// It removes key from all that it takes over.
func (w *wireError) judge(status int, wait time.Duration, key string) *Error {
	e := &Error{Fault: faultOfStatus(status, w.Status, w.Message), Status: status, Reason: w.Status,
		Message: redact(w.Message, key), RetryAfter: wait}
	known := false
	for _, d := range w.Details {
		if fault := faultOfReason(d.Reason); !known && fault != "" {
			e.Fault, e.Reason, known = fault, d.Reason, true
		} else if !known && d.Reason != "" {
			e.Reason = d.Reason
		}
		if delay, err := time.ParseDuration(d.RetryDelay); err == nil && e.RetryAfter == 0 {
			e.RetryAfter = clampWait(delay)
		}
	}
	e.Reason = redactReason(e.Reason, key)
	return e
}

// parseError returns the error object in body, or nil. A streamed error comes as the only element of an array.
func parseError(body []byte) *wireError {
	body = bytes.TrimSpace(body)
	if inner, ok := bytes.CutPrefix(body, []byte("[")); ok {
		body, _ = bytes.CutSuffix(inner, []byte("]"))
	}
	var envelope struct {
		Error *wireError `json:"error"`
	}
	if json.Unmarshal(body, &envelope) != nil {
		return nil
	}
	return envelope.Error
}

// status returns the HTTP status that the error names within a stream, whose own status was 200.
func (w *wireError) status() int {
	if code, err := strconv.Atoi(strings.Trim(string(w.Code), `"`)); err == nil && code >= 400 && code <= 599 {
		return code
	}
	if code, ok := rpcStatus[w.Status]; ok {
		return code
	}
	return http.StatusInternalServerError
}

var rpcStatus = map[string]int{
	"INVALID_ARGUMENT": 400, "FAILED_PRECONDITION": 400, "OUT_OF_RANGE": 400, "UNAUTHENTICATED": 401,
	"PERMISSION_DENIED": 403, "NOT_FOUND": 404, "ABORTED": 409, "ALREADY_EXISTS": 409, "RESOURCE_EXHAUSTED": 429,
	"UNIMPLEMENTED": 501, "UNAVAILABLE": 503, "DEADLINE_EXCEEDED": 504,
}

// faultOfReason knows the reasons of google.api.ErrorReason that speak of keys and projects; others return "".
func faultOfReason(reason string) Fault {
	switch reason {
	case "API_KEY_INVALID", "CONSUMER_SUSPENDED", "ACCESS_TOKEN_TYPE_UNSUPPORTED":
		return FaultKey
	case "SERVICE_DISABLED", "CONSUMER_INVALID", "BILLING_DISABLED", "USER_PROJECT_DENIED", "LOCATION_POLICY_VIOLATED",
		"SECURITY_POLICY_VIOLATED", "ORG_RESTRICTION_VIOLATION":
		return FaultConfig
	case "RATE_LIMIT_EXCEEDED", "RESOURCE_QUOTA_EXCEEDED":
		return FaultQuota
	}
	if strings.HasPrefix(reason, "API_KEY_") && strings.HasSuffix(reason, "_BLOCKED") {
		return FaultConfig // API_KEY_SERVICE_BLOCKED, _IP_ADDRESS_, _HTTP_REFERRER_, …: another key would do, a re-read won't
	}
	return ""
}

// The wording that Google gives without a reason. It is compared from the start, since an error may quote a prompt.
const (
	leakedMessage   = "Your API key was reported as leaked."
	twoKeysMessage  = "Multiple authentication credentials received."
	rpcPrecondition = "FAILED_PRECONDITION"
)

// faultOfStatus judges by status and wording. A 403 is the key's fault only in the one wording that says so: an unknown
// one, a denied project and "unregistered callers" (something on the way took the header off) are for a person to mend.
// So are a redirect, a second credential, which only something on the way can have added, and a 401 without Google's
// status: something on the way wants a login of its own.
func faultOfStatus(status int, rpc, message string) Fault {
	switch {
	case status == http.StatusUnauthorized && rpc != "":
		return FaultKey
	case status == http.StatusForbidden && strings.HasPrefix(message, leakedMessage):
		return FaultKey
	case status == http.StatusTooManyRequests:
		return FaultQuota
	case status >= 500, status == http.StatusRequestTimeout:
		return FaultUnavailable
	case status < 400, status == http.StatusUnauthorized, status == http.StatusForbidden,
		status == http.StatusProxyAuthRequired:
		return FaultConfig
	case status == http.StatusBadRequest && (rpc == rpcPrecondition || strings.HasPrefix(message, twoKeysMessage)):
		return FaultConfig
	}
	return FaultRequest
}

// strangeAnswer describes an answer that is not an error of the API. Its body is not shown: it may say anything.
func strangeAnswer(status int) string {
	if status >= 300 && status < 400 {
		return "the endpoint redirects elsewhere, and the key is not sent after it; set the base URL to where the API is"
	}
	return "the answer is not an error of the Gemini API; a proxy may have sent it"
}

// maxWait bounds what is believed of a Retry-After.
const maxWait = 24 * time.Hour

// parseRetryAfter reads a Retry-After header: seconds or a date. It returns 0 if there is none, or none that makes sense.
func parseRetryAfter(header string, now time.Time) time.Duration {
	header = strings.TrimSpace(header)
	if seconds, err := strconv.ParseInt(header, 10, 64); err == nil {
		return clampWait(time.Duration(min(seconds, int64(maxWait/time.Second))) * time.Second)
	}
	if at, err := http.ParseTime(header); err == nil {
		return clampWait(at.Sub(now))
	}
	return 0
}

func clampWait(d time.Duration) time.Duration { return min(max(d, 0), maxWait) }
