package gate

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/leaktest"
)

const canary = "AQ.Ab8RN6-canary_key.must-not-leak"

// body is an error document of the Gemini API, with or without a reason in its details.
func body(code int, status, message, reason string) string {
	details := ""
	if reason != "" {
		details = fmt.Sprintf(`,"details":[{"@type":"type.googleapis.com/google.rpc.ErrorInfo","reason":%q,"domain":"googleapis.com",`+
			`"metadata":{"service":"generativelanguage.googleapis.com","containerInfo":"api_key:%s"}},`+
			`{"@type":"type.googleapis.com/google.rpc.LocalizedMessage","locale":"en-US","message":%q}]`, reason, canary, message)
	}
	return fmt.Sprintf(`{"error":{"code":%d,"message":%q,"status":%q%s}}`, code, message, status, details)
}

// answers are what the Gemini API and those before it were seen to say, and what it tells of the key.
var answers = []struct {
	name   string
	status int
	body   string
	kind   Kind
	reason string
}{
	{"accepted", 200, `{"models":[{"name":"models/gemini-3.8-flash"}]}`, Accepted, ""},
	{"accepted, and nothing to list", 200, `{}`, Accepted, ""},
	{"a page to log in on", 200, `<html>log in</html>`, Unknown, "what answers is not the Gemini API: check for a proxy on the way"},
	{"invalid", 400, body(400, "INVALID_ARGUMENT", "API key not valid. Please pass a valid API key.", "API_KEY_INVALID"),
		Refused, "HTTP 400 API_KEY_INVALID"},
	{"not found", 400, body(400, "INVALID_ARGUMENT", "API Key not found. Please pass a valid API key.", "API_KEY_INVALID"),
		Refused, "HTTP 400 API_KEY_INVALID"},
	{"expired, or brand-new", 400, body(400, "INVALID_ARGUMENT", "API key expired. Please renew the API key.", "API_KEY_INVALID"),
		Refused, "HTTP 400 API_KEY_INVALID"},
	{"invalid, within an array", 400, "[" + body(400, "INVALID_ARGUMENT", "API key not valid.", "API_KEY_INVALID") + "]\n",
		Refused, "HTTP 400 API_KEY_INVALID"},
	{"standard key, or malformed", 401, body(401, "UNAUTHENTICATED", "Request had invalid authentication credentials. Expected OAuth 2 "+
		"access token", "ACCESS_TOKEN_TYPE_UNSUPPORTED"), Refused, "HTTP 401 ACCESS_TOKEN_TYPE_UNSUPPORTED"},
	{"unauthenticated without details", 401, body(401, "UNAUTHENTICATED", "Who are you?", ""), Refused, "HTTP 401"},
	{"leaked", 403, body(403, "PERMISSION_DENIED", "Your API key was reported as leaked. Please use another API key.", ""), Refused, "HTTP 403"},
	{"suspended", 403, body(403, "PERMISSION_DENIED", "Permission denied: Consumer 'api_key:"+canary+"' has been suspended.",
		"CONSUMER_SUSPENDED"), Refused, "HTTP 403 CONSUMER_SUSPENDED"},
	{"project denied", 403, body(403, "PERMISSION_DENIED", "Your project has been denied access. Please contact support.", ""), Blocked, "HTTP 403"},
	{"API off", 403, body(403, "PERMISSION_DENIED", "Generative Language API has not been used in project 1", "SERVICE_DISABLED"),
		Blocked, "HTTP 403 SERVICE_DISABLED"},
	{"restricted to other APIs", 403, body(403, "PERMISSION_DENIED", "Requests to this API are blocked.", "API_KEY_SERVICE_BLOCKED"),
		Blocked, "HTTP 403 API_KEY_SERVICE_BLOCKED"},
	{"restricted to other addresses", 403, body(403, "PERMISSION_DENIED", "blocked", "API_KEY_IP_ADDRESS_BLOCKED"),
		Blocked, "HTTP 403 API_KEY_IP_ADDRESS_BLOCKED"},
	{"restricted to other sites", 403, body(403, "PERMISSION_DENIED", "blocked", "API_KEY_HTTP_REFERRER_BLOCKED"),
		Blocked, "HTTP 403 API_KEY_HTTP_REFERRER_BLOCKED"},
	{"region", 400, body(400, "FAILED_PRECONDITION", "User location is not supported for the API use.", ""), Blocked, "HTTP 400"},
	{"no key arrived", 403, body(403, "PERMISSION_DENIED", "Method doesn't allow unregistered callers", ""), Blocked, "HTTP 403"},
	{"two credentials", 400, body(400, "INVALID_ARGUMENT", "Multiple authentication credentials received. Please pass only one.", ""),
		Unknown, "HTTP 400"},
	{"a 401 that is not Google's", 401, "<html>log in to the proxy</html>", Unknown, "HTTP 401"},
	{"a 403 that is not Google's", 403, "<html>forbidden by the proxy</html>", Unknown, "HTTP 403"},
	{"leaked, said by a prompt", 403, body(403, "PERMISSION_DENIED", "You wrote: Your API key was reported as leaked.", ""), Blocked, "HTTP 403"},
	{"quota", 429, body(429, "RESOURCE_EXHAUSTED", "Resource has been exhausted (e.g. check quota).", ""), Unknown, "HTTP 429"},
	{"quota, as a 403", 403, body(403, "PERMISSION_DENIED", "too fast", "RATE_LIMIT_EXCEEDED"), Unknown, "HTTP 403"},
	{"internal", 500, body(500, "INTERNAL", "An internal error has occurred.", ""), Unknown, "HTTP 500"},
	{"overloaded", 503, body(503, "UNAVAILABLE", "The model is overloaded. Please try again later.", ""), Unknown, "HTTP 503"},
	{"a gateway's words", 502, "bad gateway", Unknown, "HTTP 502"},
	{"a redirect", 302, "", Unknown, "HTTP 302"},
	{"nothing at all", 400, "", Unknown, "HTTP 400"},
	{"an error that is none", 400, `{"error":"bad"}`, Unknown, "HTTP 400"},
	{"a null", 400, `{"error":null}`, Unknown, "HTTP 400"},
}

func TestEachAnswerTellsWhatItTells(t *testing.T) {
	for _, test := range answers {
		got := classify(test.status, http.Header{}, []byte(test.body))
		if got.Kind != test.kind || !strings.HasPrefix(got.Reason, test.reason) || test.reason == "" && got.Reason != "" {
			t.Errorf("%s: %+v, want kind %d and %q", test.name, got, test.kind, test.reason)
		}
		if strings.Contains(got.Reason, canary) {
			t.Errorf("%s: the key came out: %q", test.name, got.Reason)
		}
	}
}

func TestHowLongGeminiAsksToBeLeftAlone(t *testing.T) {
	now := time.Now()
	for value, want := range map[string]time.Duration{
		"": 0, "0": 0, "7": 7 * time.Second, "-7": 0, "1.5": 0, "soon": 0, "99999999": maxRetryAfter, "99999999999999999999": 0,
		now.Add(-time.Hour).UTC().Format(http.TimeFormat): 0,
		now.Add(time.Hour).UTC().Format(http.TimeFormat):  maxRetryAfter,
	} {
		if got := classify(429, http.Header{"Retry-After": {value}}, nil).RetryAfter; got != want {
			t.Errorf("Retry-After %q: %v, want %v", value, got, want)
		}
	}
	const info = `{"error":{"status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"26s"}]}}`
	if got := classify(429, http.Header{}, []byte(info)).RetryAfter; got != 26*time.Second {
		t.Errorf("RetryInfo: %v", got)
	}
	if got := classify(429, http.Header{"Retry-After": {"3"}}, []byte(info)).RetryAfter; got != 3*time.Second {
		t.Errorf("the header goes first: %v", got)
	}
}

// FuzzClassify: whatever comes back, nothing panics, and nothing of it comes out again but a reason that we know.
func FuzzClassify(f *testing.F) {
	for _, a := range answers {
		f.Add(a.status, "", []byte(a.body))
	}
	f.Add(400, canary, []byte(`{"error":{"message":"`+canary+`","status":"`+canary+`","details":[{"reason":"`+canary+`"}]}}`))
	f.Fuzz(func(t *testing.T, status int, header string, body []byte) {
		a := classify(status, http.Header{"Retry-After": {header}}, body)
		if a.RetryAfter < 0 || a.RetryAfter > maxRetryAfter {
			t.Errorf("asked to be left alone for %v", a.RetryAfter)
		}
		text, err := json.Marshal(a)
		if form, found := leaktest.Find(string(text), canary); err != nil || found {
			t.Errorf("%s, %v, %s", text, err, form)
		}
		if a.Kind == Accepted && status != 200 {
			t.Errorf("HTTP %d is taken for an acceptance", status)
		}
	})
}
