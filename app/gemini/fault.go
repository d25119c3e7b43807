package gemini

import (
	"errors"
	"strconv"
	"strings"
	"time"
)

// Fault says what has to change before the same request can succeed.
type Fault string

const (
	FaultKey         Fault = "key"           // the key: not valid, expired, unknown, leaked or suspended. Use another one.
	FaultQuota       Fault = "quota"         // time: too many requests for the project. Another key of the project won't help.
	FaultConfig      Fault = "configuration" // a person: the API is off, blocked or not offered here, the project is denied.
	FaultRequest     Fault = "request"       // the request: malformed, no such model, a blocked prompt or answer.
	FaultUnavailable Fault = "unavailable"   // time: Google or the network failed, or the answer was unreadable.
	FaultTruncated   Fault = "truncated"     // time: a stream ended without a finishReason.
)

// Error is the failure of a call. It holds no key, and wraps nothing that could hold one.
type Error struct {
	Fault      Fault
	Status     int           // of the HTTP answer, or of the error inside a stream; 0 if there was none
	Reason     string        // Google's reason or status, such as API_KEY_INVALID; may be empty
	Message    string        // Google's own words, or ours about the network; redacted
	RetryAfter time.Duration // how long Google asks to wait; 0 if it doesn't say
}

// Error tells what happened, in one line.
func (e *Error) Error() string {
	var b strings.Builder
	b.WriteString("gemini: ")
	b.WriteString(faultWords[e.Fault])
	if e.Status != 0 || e.Reason != "" {
		b.WriteString(" (")
		if e.Status != 0 {
			b.WriteString(strconv.Itoa(e.Status))
		}
		if e.Status != 0 && e.Reason != "" {
			b.WriteByte(' ')
		}
		b.WriteString(e.Reason)
		b.WriteByte(')')
	}
	if e.Message != "" {
		b.WriteString(": ")
		b.WriteString(e.Message)
	}
	return b.String()
}

var faultWords = map[Fault]string{
	FaultKey:         "the key is refused",
	FaultQuota:       "the project's quota is used up",
	FaultConfig:      "the project or the API is not set up for this call",
	FaultRequest:     "the request is refused",
	FaultUnavailable: "the API is unavailable",
	FaultTruncated:   "the stream ended before the answer was complete",
}

// FaultOf returns the fault of the first *[Error] in err's tree, or "" if there is none.
func FaultOf(err error) Fault {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Fault
	}
	return ""
}
