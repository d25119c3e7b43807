package gemini

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
)

func TestTheReasonGoesBeforeTheStatus(t *testing.T) {
	tests := []struct {
		status int
		body   string
		want   Fault
		reason string
	}{
		{400, `{"error":{"message":"any other words","details":[{"reason":"API_KEY_INVALID"}]}}`, FaultKey, "API_KEY_INVALID"},
		{400, `{"error":{"message":"Your API key was reported as leaked. Please use another API key."}}`, FaultRequest, ""},
		{403, `{"error":{"message":"You said: Your API key was reported as leaked."}}`, FaultConfig, ""},
		{403, `{"error":{"details":[{"reason":"IAM_PERMISSION_DENIED"}]}}`, FaultConfig, "IAM_PERMISSION_DENIED"},
		{403, `{"error":{"details":[{},{"reason":"NEWS"},{"reason":"CONSUMER_SUSPENDED"},{"reason":"MORE"}]}}`, FaultKey,
			"CONSUMER_SUSPENDED"},
		{403, `{"error":{"details":[{"reason":"API_KEY_ANDROID_APP_BLOCKED"}]}}`, FaultConfig, "API_KEY_ANDROID_APP_BLOCKED"},
		{403, `{"error":{"details":[{"reason":"RATE_LIMIT_EXCEEDED"}]}}`, FaultQuota, "RATE_LIMIT_EXCEEDED"},
		{401, `{"error":{"status":"UNAUTHENTICATED","details":[{"reason":"CREDENTIALS_MISSING"}]}}`, FaultKey, "CREDENTIALS_MISSING"},
		{401, `{"error":{"details":[{"reason":"API_KEY_INVALID"}]}}`, FaultKey, "API_KEY_INVALID"},
		{400, `{"error":{"status":"FAILED_PRECONDITION"}}`, FaultConfig, "FAILED_PRECONDITION"},
		{401, `{"error":{"status":"UNAUTHENTICATED","message":"Who are you?"}}`, FaultKey, "UNAUTHENTICATED"},
		{401, `{"error":{"message":"Who are you?"}}`, FaultConfig, ""},
		{401, " \n", FaultKey, ""},
		{401, `{"error":"unauthorized"}`, FaultConfig, ""},
		{412, ``, FaultRequest, ""},
		{408, ``, FaultUnavailable, ""},
		{407, ``, FaultConfig, ""},
		{302, ``, FaultConfig, ""},
		{599, `null`, FaultUnavailable, ""},
		{400, `{"error":{"details":"no list"}}`, FaultRequest, ""},
	}
	for _, test := range tests {
		if e := classify(test.status, 0, []byte(test.body), canary); e.Fault != test.want || e.Reason != test.reason {
			t.Errorf("%d %s: %v", test.status, test.body, e)
		}
	}
}

func TestHowLongToWait(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	headers := map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, " 7 ": 7 * time.Second, "-7": 0, "1.5": 0, "soon": 0,
		"99999999999999":       maxWait,
		"99999999999999999999": 0,
		now.Add(90 * time.Second).Format(http.TimeFormat): 90 * time.Second,
		now.Add(-time.Hour).Format(http.TimeFormat):       0,
		"Monday, 23-Nov-26 12:00:05 GMT":                  5 * time.Second,
	}
	for header, want := range headers {
		if got := parseRetryAfter(header, now); got != want {
			t.Errorf("Retry-After %q: %v, want %v", header, got, want)
		}
	}
	for delay, want := range map[string]time.Duration{"26s": 26 * time.Second, "0.5s": time.Second / 2, "-3s": 0,
		"9999999s": maxWait, "later": 0} {
		body := fmt.Sprintf(`{"error":{"details":[{"retryDelay":%q}]}}`, delay)
		if e := classify(429, 0, []byte(body), canary); e.RetryAfter != want {
			t.Errorf("RetryInfo %q: %v, want %v", delay, e.RetryAfter, want)
		}
	}
	if e := classify(429, time.Second, []byte(`{"error":{"details":[{"retryDelay":"26s"}]}}`), canary); e.RetryAfter != time.Second {
		t.Errorf("the header goes before the details: %v", e.RetryAfter)
	}
}

func TestRedact(t *testing.T) {
	tests := map[string]string{
		"Consumer 'api_key:" + canary + "' has been suspended.": "Consumer 'api_key:[redacted]' has been suspended.",
		"Consumer 'api_key:another-key' has been suspended.":    "Consumer 'api_key:[redacted]' has been suspended.",
		"Post \"https://h/p?key=placeholder&x=1\": refused":     "Post \"https://h/p?key=[redacted]&x=1\": refused",
		"the key AIzaSyA-0123456789abcdefghijklmnopqrstu.":      "the key [redacted].",
		"two\nlines\tand\x00a NUL":                              "two lines and a NUL",
		canary[:5] + "\x01" + canary[5:]:                        canary[:5] + " " + canary[5:],
		canary + canary:                                         redacted + redacted,
		"":                                                      "",
	}
	for in, want := range tests {
		if got := redact(in, canary); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
	if got := redact("a b+c%2F is quoted", "b c/"); strings.Contains(got, "b+c%2F") {
		t.Errorf("escaped: %q", got)
	}
	if got := redact(strings.Repeat("ü", 1000), canary); len(got) > maxMessage+len("…") || strings.ContainsRune(got, '\uFFFD') {
		t.Errorf("too long or cut within a letter: %d bytes", len(got))
	}
}

// FuzzClassify: whatever comes back, nothing panics, every answer has a fault, and the key doesn't come out.
func FuzzClassify(f *testing.F) {
	for _, c := range geminitest.Cases() {
		status, body := c.Response(canary)
		f.Add(status, "", body)
		f.Add(status, "3", []byte("["+string(body)+"]"))
	}
	f.Add(502, "Mon, 23 Nov 2026 12:00:00 GMT", []byte("<html>"+canary))
	f.Add(400, canary, []byte(`{"error":{"code":"`+canary+`","message":"`+canary+`","status":"`+canary+
		`","details":[{"reason":"`+canary+`","retryDelay":"`+canary+`"}]}}`))
	f.Add(200, "-1", []byte(`{"error":{"message":"AQ.Ab8RN6-canary_key\u0000.must-not-leak"}}`))
	f.Fuzz(func(t *testing.T, status int, header string, body []byte) {
		e := classify(status, parseRetryAfter(header, time.Now()), body, canary)
		if faultWords[e.Fault] == "" || e.Fault == FaultTruncated || e.RetryAfter < 0 || e.RetryAfter > maxWait {
			t.Errorf("%#v", e)
		}
		text, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Join([]string{e.Error(), fmt.Sprintf("%+v %#v", e, e), e.Reason, e.Message, string(text)}, " and ")
		if comesOut(said, string(body), canary, canary) {
			t.Errorf("the key came out: %q", said)
		}
		if strings.ContainsAny(e.Error(), "\n\r\x00") {
			t.Errorf("more than one line: %q", e.Error())
		}
		if w := parseError(body); w != nil {
			if s := w.status(); s < 400 || s > 599 {
				t.Errorf("status %d of an error in a stream", s)
			}
		}
	})
}
