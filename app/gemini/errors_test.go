package gemini_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/gemini/geminitest"
)

// expected says what each of Google's errors means.
var expected = map[geminitest.Case]gemini.Error{
	geminitest.Invalid:         {Fault: gemini.FaultKey, Status: 400, Reason: "API_KEY_INVALID"},
	geminitest.NotFound:        {Fault: gemini.FaultKey, Status: 400, Reason: "API_KEY_INVALID"},
	geminitest.Expired:         {Fault: gemini.FaultKey, Status: 400, Reason: "API_KEY_INVALID"},
	geminitest.TokenType:       {Fault: gemini.FaultKey, Status: 401, Reason: "ACCESS_TOKEN_TYPE_UNSUPPORTED"},
	geminitest.Leaked:          {Fault: gemini.FaultKey, Status: 403, Reason: "PERMISSION_DENIED"},
	geminitest.Suspended:       {Fault: gemini.FaultKey, Status: 403, Reason: "CONSUMER_SUSPENDED"},
	geminitest.ProjectDenied:   {Fault: gemini.FaultConfig, Status: 403, Reason: "PERMISSION_DENIED"},
	geminitest.ServiceDisabled: {Fault: gemini.FaultConfig, Status: 403, Reason: "SERVICE_DISABLED"},
	geminitest.ServiceBlocked:  {Fault: gemini.FaultConfig, Status: 403, Reason: "API_KEY_SERVICE_BLOCKED"},
	geminitest.AddressBlocked:  {Fault: gemini.FaultConfig, Status: 403, Reason: "API_KEY_IP_ADDRESS_BLOCKED"},
	geminitest.ReferrerBlocked: {Fault: gemini.FaultConfig, Status: 403, Reason: "API_KEY_HTTP_REFERRER_BLOCKED"},
	geminitest.Region:          {Fault: gemini.FaultConfig, Status: 400, Reason: "FAILED_PRECONDITION"},
	geminitest.NoKey:           {Fault: gemini.FaultConfig, Status: 403, Reason: "PERMISSION_DENIED"},
	geminitest.TwoCredentials:  {Fault: gemini.FaultConfig, Status: 400, Reason: "INVALID_ARGUMENT"},
	geminitest.KeyInURL:        {Fault: gemini.FaultRequest, Status: 404, Reason: "NOT_FOUND"},
	geminitest.RateLimited:     {Fault: gemini.FaultQuota, Status: 429, Reason: "RESOURCE_EXHAUSTED"},
	geminitest.QuotaExceeded:   {Fault: gemini.FaultQuota, Status: 429, Reason: "RESOURCE_EXHAUSTED", RetryAfter: 26 * time.Second},
	geminitest.QuotaHelp:       {Fault: gemini.FaultQuota, Status: 429, Reason: "RESOURCE_EXHAUSTED"},
	geminitest.BadRequest:      {Fault: gemini.FaultRequest, Status: 400, Reason: "INVALID_ARGUMENT"},
	geminitest.NoModel:         {Fault: gemini.FaultRequest, Status: 404, Reason: "NOT_FOUND"},
	geminitest.Internal:        {Fault: gemini.FaultUnavailable, Status: 500, Reason: "INTERNAL"},
	geminitest.Overloaded:      {Fault: gemini.FaultUnavailable, Status: 503, Reason: "UNAVAILABLE"},
}

// answers are what else may come back, from proxies and from broken connections.
var answers = []struct {
	name   string
	status int
	header http.Header
	body   string
	want   gemini.Error
}{
	{"HTML from a proxy", 502, nil, "<html><b>Bad Gateway</b> key " + canary + "</html>",
		gemini.Error{Fault: gemini.FaultUnavailable, Status: 502}},
	{"HTML with success", 200, nil, "<html>Please log in to the WiFi, " + canary + "</html>",
		gemini.Error{Fault: gemini.FaultUnavailable, Status: 200}},
	{"success that breaks off", 200, nil, `{"candidates":[{"content":{"parts":[{"te`,
		gemini.Error{Fault: gemini.FaultUnavailable, Status: 200}},
	{"error that breaks off", 503, http.Header{"Retry-After": {"7"}}, `{"error":{"code":503,"mess`,
		gemini.Error{Fault: gemini.FaultUnavailable, Status: 503, RetryAfter: 7 * time.Second}},
	{"quota with Retry-After", 429, http.Header{"Retry-After": {"3"}}, `{"error":{"code":429,"status":"RESOURCE_EXHAUSTED"}}`,
		gemini.Error{Fault: gemini.FaultQuota, Status: 429, Reason: "RESOURCE_EXHAUSTED", RetryAfter: 3 * time.Second}},
	{"unknown 403", 403, nil, `{"error":{"code":403,"message":"The caller does not have permission","status":"PERMISSION_DENIED"}}`,
		gemini.Error{Fault: gemini.FaultConfig, Status: 403, Reason: "PERMISSION_DENIED"}},
	{"unknown 401", 401, nil, ``, gemini.Error{Fault: gemini.FaultKey, Status: 401}},
	{"login page of a proxy", 401, nil, "<html>log in first</html>", gemini.Error{Fault: gemini.FaultConfig, Status: 401}},
	{"login of a gateway", 401, nil, `{"message":"Unauthorized"}`, gemini.Error{Fault: gemini.FaultConfig, Status: 401}},
	{"login of a gateway in Google's form", 401, nil, `{"error":{"code":401,"message":"Unauthorized"}}`,
		gemini.Error{Fault: gemini.FaultConfig, Status: 401}},
	{"code that is a word", 400, nil, `{"error":{"code":"invalid_request","message":"no"}}`,
		gemini.Error{Fault: gemini.FaultRequest, Status: 400}},
	{"error in an array", 400, nil, `[{"error":{"code":400,"status":"INVALID_ARGUMENT","details":[{"reason":"API_KEY_INVALID"}]}}]`,
		gemini.Error{Fault: gemini.FaultKey, Status: 400, Reason: "API_KEY_INVALID"}},
	{"redirect that quotes the key", 307, http.Header{"Location": {"https://example.com/?key=" + canary}}, canary,
		gemini.Error{Fault: gemini.FaultConfig, Status: 307}},
	{"key everywhere", 400, http.Header{"Retry-After": {canary}}, `{"error":{"code":400,"status":"` + canary + `","message":"` +
		canary + `","details":[{"reason":"` + canary + `","retryDelay":"` + canary + `"}]}}`,
		gemini.Error{Fault: gemini.FaultRequest, Status: 400}},
}

func TestEveryErrorOfGoogleIsJudgedThroughBothSDKs(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		client := backend.Client(newKey(t, canary))
		for _, c := range geminitest.Cases() {
			api.Refuse(canary, c)
			for name, do := range calls {
				want, ok := expected[c]
				if !ok {
					t.Fatalf("no expectation for %q", c)
				}
				checkError(t, string(c)+", "+name, do(t.Context(), client), want)
			}
		}
		if n := len(api.Requests()); n != len(geminitest.Cases())*len(calls) {
			t.Errorf("%d requests for %d calls: an SDK repeated some", n, len(geminitest.Cases())*len(calls))
		}
	})
}

func TestAnythingElseIsJudgedByItsStatus(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		client := backend.Client(newKey(t, canary))
		for _, a := range answers {
			for name, do := range calls {
				want := a.want
				if name == "Stream" && a.status == 200 {
					want.Fault = gemini.FaultTruncated // there was no finishReason: that is all that is known
				}
				api.Fail(1, a.status, a.header, a.body)
				checkError(t, a.name+", "+name, do(t.Context(), client), want)
			}
		}
	})
}

func TestRetryAfterOfARateLimitedKeyArrives(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		api.Add(canary)
		client := backend.Client(newKey(t, canary))
		for name, do := range calls {
			api.RateLimit(canary, 1500*time.Millisecond, 1)
			checkError(t, name, do(t.Context(), client), gemini.Error{Fault: gemini.FaultQuota, Status: 429,
				Reason: "RESOURCE_EXHAUSTED", RetryAfter: 2 * time.Second})
			if err := do(t.Context(), client); err != nil {
				t.Errorf("%s after the limit: %v", name, err)
			}
		}
	})
}

func TestANetworkThatFailsIsUnavailableAndKeepsTheKey(t *testing.T) {
	for _, sdk := range gemini.SDKs() {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		url := "http://" + listener.Addr().String()
		listener.Close()
		client := newBackend(t, sdk, url).Client(newKey(t, canary))
		for name, do := range calls {
			err := do(t.Context(), client)
			checkError(t, string(sdk)+", "+name, err, gemini.Error{Fault: gemini.FaultUnavailable})
			if !strings.Contains(err.Error(), "connection refused") || strings.Contains(err.Error(), "v1beta") {
				t.Errorf("%s, %s: it should say what went wrong, without the URL: %v", sdk, name, err)
			}
		}
	}
}

func TestACertificateThatNobodyVouchesForIsNamed(t *testing.T) {
	for _, sdk := range gemini.SDKs() {
		host := httptest.NewUnstartedServer(nil)
		host.Config.ErrorLog = log.New(io.Discard, "", 0)
		host.StartTLS()
		client := newBackend(t, sdk, host.URL).Client(newKey(t, canary))
		for name, do := range calls {
			err := do(t.Context(), client)
			checkError(t, string(sdk)+", "+name, err, gemini.Error{Fault: gemini.FaultUnavailable})
			if !strings.Contains(err.Error(), "certificate") {
				t.Errorf("%s, %s: %v", sdk, name, err)
			}
		}
		host.Close()
	}
}

func TestAPromptThatIsNoTextIsNotSent(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		api.Add(canary)
		client := backend.Client(newKey(t, canary))
		if _, err := client.Generate(t.Context(), "\xff"); gemini.FaultOf(err) != gemini.FaultRequest {
			t.Errorf("Generate: %v", err)
		}
		if _, err := collect(t.Context(), client, "\xff"); gemini.FaultOf(err) != gemini.FaultRequest {
			t.Errorf("Stream: %v", err)
		}
		if n := len(api.Requests()); n != 0 {
			t.Errorf("%d requests were sent", n)
		}
	})
}

// checkError compares everything but the message, and looks for the key in every form that an error can be printed in.
func checkError(t *testing.T, what string, err error, want gemini.Error) {
	t.Helper()
	e, ok := errors.AsType[*gemini.Error](err)
	if !ok {
		t.Errorf("%s: %v is no *gemini.Error", what, err)
		return
	}
	got := *e
	if got.Message == "" && want.Status != 401 && want.Status != 429 && want.Fault != gemini.FaultTruncated && got.Reason != "API_KEY_INVALID" {
		t.Errorf("%s: no message", what)
	}
	got.Message = ""
	if got != want {
		t.Errorf("%s: %#v, want %#v", what, got, want)
	}
	if errors.Is(err, context.Canceled) || gemini.FaultOf(err) != want.Fault {
		t.Errorf("%s: FaultOf is %q", what, gemini.FaultOf(err))
	}
	for ; err != nil; err = errors.Unwrap(err) {
		for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
			if text := fmt.Sprintf(format, err); strings.Contains(text, canary) || strings.Contains(text, "must-not-leak") {
				t.Errorf("%s: %s shows the key", what, format)
			}
		}
	}
}
