package server_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/internal/server"
	"github.com/keyturn/keyturn/examples/pipetest"
)

func TestAPromptGetsItsTextAndGeneration(t *testing.T) {
	var prompt string
	url := host(t, &fake{generate: func(_ context.Context, p string) (client.Answer, error) {
		prompt = p
		return client.Answer{Text: "<Blue> & \"blue\"\n", Generation: 7}, nil
	}})
	a := post(t, url+"/v1/generate", question)
	if want := `{"text":"<Blue> & \"blue\"\n","generation":7}` + "\n"; a.status != 200 || a.body != want {
		t.Errorf("%d %q, want %q", a.status, a.body, want)
	}
	if media := a.header.Get("Content-Type"); media != "application/json" {
		t.Errorf("Content-Type %q", media)
	}
	if prompt != "Why is the sky blue?" {
		t.Errorf("Gemini was asked %q", prompt)
	}
}

func TestARequestThatIsWrongIsAProblemAndAsksNobody(t *testing.T) {
	const media = "application/json"
	tests := []struct {
		name, method, path, media, body string
		status                          int
	}{
		{"unknown path", "POST", "/v1/generation", media, question, 404},
		{"root", "GET", "/", "", "", 404},
		{"doubled slash", "POST", "//v1/generate", media, question, 404},
		{"slash at the end", "POST", "/v1/generate/", media, question, 404},
		{"GET of a POST", "GET", "/v1/generate", "", "", 405},
		{"PUT of a POST", "PUT", "/v1/stream", media, question, 405},
		{"POST of a GET", "POST", "/status", media, "{}", 405},
		{"POST of metrics", "POST", "/metrics", media, "{}", 405},
		{"DELETE", "DELETE", "/readyz", "", "", 405},
		{"no content type", "POST", "/v1/generate", "", question, 415},
		{"a form", "POST", "/v1/generate", "application/x-www-form-urlencoded", question, 415},
		{"text", "POST", "/v1/stream", "text/plain", question, 415},
		{"a content type that is none", "POST", "/v1/generate", "application/json; =", question, 415},
		{"nothing", "POST", "/v1/generate", media, "", 400},
		{"no JSON", "POST", "/v1/generate", media, "prompt=hello", 400},
		{"JSON that breaks off", "POST", "/v1/stream", media, `{"prompt":"hel`, 400},
		{"two documents", "POST", "/v1/generate", media, question + question, 400},
		{"a tail", "POST", "/v1/generate", media, question + "x", 400},
		{"an array", "POST", "/v1/generate", media, "[" + question + "]", 400},
		{"a string", "POST", "/v1/generate", media, `"prompt"`, 400},
		{"null", "POST", "/v1/generate", media, "null", 400},
		{"a number for a prompt", "POST", "/v1/generate", media, `{"prompt":7}`, 400},
		{"null for a prompt", "POST", "/v1/generate", media, `{"prompt":null}`, 400},
		{"an empty prompt", "POST", "/v1/stream", media, `{"prompt":""}`, 400},
		{"no prompt", "POST", "/v1/generate", media, "{}", 400},
		{"another field", "POST", "/v1/generate", media, `{"prompt":"hello","model":"gemini"}`, 400},
		{"a mistyped field", "POST", "/v1/generate", media, `{"promt":"hello"}`, 400},
		{"another case", "POST", "/v1/generate", media, `{"PROMPT":"hello"}`, 400},
		{"the prompt twice", "POST", "/v1/generate", media, `{"prompt":"hello","prompt":"bye"}`, 400},
		{"the prompt twice, once in another writing", "POST", "/v1/stream", media, `{"prompt":"hello","\u0070rompt":"bye"}`, 400},
		{"a comma too many", "POST", "/v1/generate", media, `{"prompt":"hello",}`, 400},
		{"half a surrogate pair", "POST", "/v1/generate", media, `{"prompt":"\ud83d"}`, 400},
		{"its other half", "POST", "/v1/generate", media, `{"prompt":"\uDE00 hello"}`, 400},
		{"halves that are none of one", "POST", "/v1/stream", media, `{"prompt":"\ud83d\ud83d\ude00"}`, 400},
		{"halves that are apart", "POST", "/v1/generate", media, `{"prompt":"\ud83d\\\ude00"}`, 400},
		{"no UTF-8", "POST", "/v1/generate", media, "{\"prompt\":\"\xff\"}", 400},
		{"too large", "POST", "/v1/generate", media, `{"prompt":"` + strings.Repeat("a", 1<<20) + `"}`, 413},
		// No more than is read, or a caller who is still writing when the connection ends may not see the answer.
		{"large and no JSON", "POST", "/v1/stream", media, strings.Repeat("a", 1<<20+1), 413},
	}
	c := &fake{
		generate: func(context.Context, string) (client.Answer, error) {
			t.Error("Gemini was asked")
			return client.Answer{}, nil
		},
		stream: func(context.Context, string) iter.Seq2[client.Answer, error] {
			t.Error("Gemini was asked")
			return pieces(nil)
		},
	}
	url := host(t, c)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			header := http.Header{}
			if test.media != "" {
				header.Set("Content-Type", test.media)
			}
			a := ask(t, test.method, url+test.path, test.body, header)
			p := a.problem(t)
			if p.Status != test.status || p.Type != "about:blank" || p.Title != http.StatusText(test.status) {
				t.Errorf("%+v, want %d", p, test.status)
			}
			if allow := a.header.Get("Allow"); (allow != "") != (test.status == 405) {
				t.Errorf("Allow: %q", allow)
			}
		})
	}
}

func TestABodyThatIsJustSmallEnoughIsTaken(t *testing.T) {
	url := host(t, &fake{})
	const around = len(`{"prompt":""}`)
	if a := post(t, url+"/v1/generate", `{"prompt":"`+strings.Repeat("a", 1<<20-around)+`"}`); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestTheHeaderMayNameWhatChangesNothing(t *testing.T) {
	url := host(t, &fake{}) + "/v1/generate"
	for _, test := range []struct {
		media    string
		encoding []string
		status   int
	}{
		{"Application/JSON; charset=utf-8", nil, 200},
		{"application/json", []string{"identity"}, 200},
		{"application/json", []string{"Identity"}, 200},
		{"application/json", []string{"gzip"}, 415},
		{"application/json", []string{"identity", "gzip"}, 415},
	} {
		a := ask(t, "POST", url, question, http.Header{"Content-Type": {test.media}, "Content-Encoding": test.encoding})
		if a.status != test.status || a.status != 200 && a.problem(t).Status != test.status {
			t.Errorf("%q, %q: %d %s", test.media, test.encoding, a.status, a.body)
		}
	}
}

func TestAPromptIsWhatItsEscapesSay(t *testing.T) {
	var got string
	url := host(t, &fake{generate: func(_ context.Context, prompt string) (client.Answer, error) {
		got = prompt
		return client.Answer{}, nil
	}})
	for document, want := range map[string]string{
		`"\ud83d\uDE00"`:         "😀",
		`"\\ud83d"`:              `\ud83d`,
		`"\\\ud83d\ude00\ufffd"`: `\😀` + "\uFFFD",
		`"\u0041\n\"\u00e9é"`:    "A\n\"éé",
		`"` + "\uFFFD" + `"`:     "\uFFFD",
	} {
		if a := post(t, url+"/v1/generate", ` { "prompt" : `+document+" } \n"); a.status != 200 || got != want {
			t.Errorf("%s: %q, want %q: %d %s", document, got, want, a.status, a.body)
		}
	}
}

func TestABodyThatNeverEndsIsAProblem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := pipetest.Listen(t)
		s := &http.Server{Handler: newServer(&fake{}), ReadTimeout: 100 * time.Millisecond}
		ended := make(chan error)
		go func() { ended <- s.Serve(l) }()
		theirs, endless := io.Pipe()
		t.Cleanup(func() { endless.Close(); s.Close(); <-ended })
		go fmt.Fprint(endless, `{"prompt":`)
		request, err := http.NewRequestWithContext(t.Context(), "POST", "http://"+l.Address()+"/v1/generate", theirs)
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Content-Type", "application/json")
		response, err := caller.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if response.StatusCode != http.StatusRequestTimeout {
			t.Error(response.Status)
		}
	})
}

// failures are all the ways in which a call can end badly, and what the caller is told.
var failures = []struct {
	name   string
	err    error
	kind   string
	status int
	wait   string // Retry-After
	reason string
	detail string // some of it
}{
	{"no key", client.ErrNoKey, "no-key", 503, "2", "", "no valid key"},
	{"no key, wrapped", fmt.Errorf("call: %w", client.ErrNoKey), "no-key", 503, "2", "", "no valid key"},
	{"every key refused", client.ErrRefused, "key-refused", 503, "2", "", "refuses every key"},
	{"refused, with the last refusal", fmt.Errorf("%w: %w", client.ErrRefused, &gemini.Error{Fault: gemini.FaultKey, Status: 400}),
		"key-refused", 503, "2", "", "refuses every key"},
	{"a refusal of the key", &gemini.Error{Fault: gemini.FaultKey, Status: 400, Reason: "API_KEY_INVALID"}, "key-refused", 503, "2", "", "refuses every key"},
	{"quota", &gemini.Error{Fault: gemini.FaultQuota, Status: 429, Reason: "RESOURCE_EXHAUSTED", Message: "Slow down.", RetryAfter: 26 * time.Second},
		"quota", 429, "26", "RESOURCE_EXHAUSTED", "Slow down."},
	{"quota for a moment", &gemini.Error{Fault: gemini.FaultQuota, Status: 429, RetryAfter: time.Millisecond}, "quota", 429, "1", "", "quota is used up"},
	{"quota without a word", &gemini.Error{Fault: gemini.FaultQuota, Status: 429}, "quota", 429, "", "", "quota is used up"},
	{"API off", &gemini.Error{Fault: gemini.FaultConfig, Status: 403, Reason: "SERVICE_DISABLED", Message: "Enable it."},
		"configuration", 502, "", "SERVICE_DISABLED", "the app's log"},
	{"bad request", &gemini.Error{Fault: gemini.FaultRequest, Status: 400, Reason: "INVALID_ARGUMENT", Message: "Too long."},
		"request-refused", 400, "", "INVALID_ARGUMENT", "Too long."},
	{"no model", &gemini.Error{Fault: gemini.FaultRequest, Status: 404, Reason: "NOT_FOUND"}, "request-refused", 404, "", "NOT_FOUND", ""},
	{"blocked", &gemini.Error{Fault: gemini.FaultRequest, Status: 200, Reason: "SAFETY", Message: "Blocked."},
		"request-refused", 422, "", "SAFETY", "Blocked."},
	{"never sent", &gemini.Error{Fault: gemini.FaultRequest, Message: "Not UTF-8."}, "request-refused", 400, "", "", "Not UTF-8."},
	{"overloaded", &gemini.Error{Fault: gemini.FaultUnavailable, Status: 503, RetryAfter: 7 * time.Second}, "unavailable", 503, "7", "", "the app's log"},
	{"deadline at Google", &gemini.Error{Fault: gemini.FaultUnavailable, Status: 504}, "unavailable", 504, "", "", ""},
	{"timeout at Google", &gemini.Error{Fault: gemini.FaultUnavailable, Status: 408}, "unavailable", 504, "", "", ""},
	{"internal at Google", &gemini.Error{Fault: gemini.FaultUnavailable, Status: 500}, "unavailable", 502, "", "", ""},
	{"network", &gemini.Error{Fault: gemini.FaultUnavailable, Message: "connection refused"}, "unavailable", 502, "", "", "the app's log"},
	{"unreadable", &gemini.Error{Fault: gemini.FaultUnavailable, Status: 200}, "unavailable", 502, "", "", ""},
	{"truncated", &gemini.Error{Fault: gemini.FaultTruncated, Status: 200}, "truncated", 502, "", "", ""},
	{"a fault of tomorrow", &gemini.Error{Fault: "tomorrow", Status: 418, Message: "Tea."}, "unavailable", 502, "", "", "the app's log"},
	{"too slow", fmt.Errorf("given up: %w", context.DeadlineExceeded), "timeout", 504, "", "", "1m0s"},
	{"closed", gemini.ErrClosed, "stopping", 503, "1", "", "told to stop"},
	{"unknown", errUnknown, "internal", 500, "", "", "doesn't know"},
}

func TestEveryFailureOfACallIsAProblem(t *testing.T) {
	for _, test := range failures {
		t.Run(test.name, func(t *testing.T) {
			url := host(t, &fake{
				generate: func(context.Context, string) (client.Answer, error) { return client.Answer{}, test.err },
				stream:   func(context.Context, string) iter.Seq2[client.Answer, error] { return pieces(test.err) },
			})
			check := func(how string, p server.Problem, header http.Header) {
				if p.Type != server.TypePrefix+test.kind || p.Status != test.status || p.Reason != test.reason || !strings.Contains(p.Detail, test.detail) {
					t.Errorf("%s: %+v", how, p)
				}
				if wait := header.Get("Retry-After"); wait != test.wait || (wait != "" && wait != fmt.Sprint(p.RetryAfter)) {
					t.Errorf("%s: Retry-After %q and %d, want %q", how, wait, p.RetryAfter, test.wait)
				}
				if strings.Contains(p.Detail, errUnknown.Error()) {
					t.Errorf("%s shows what nobody has vouched for: %q", how, p.Detail)
				}
			}
			for _, path := range []string{"/v1/generate", "/v1/stream"} {
				a := post(t, url+path, question)
				check(path, a.problem(t), a.header)
			}
		})
	}
}

func TestEveryFailureWithinAStreamIsAnEvent(t *testing.T) {
	for _, test := range failures {
		t.Run(test.name, func(t *testing.T) {
			url := host(t, &fake{stream: func(context.Context, string) iter.Seq2[client.Answer, error] { return pieces(test.err, "Bl") }})
			a := post(t, url+"/v1/stream", question)
			first, rest, _ := strings.Cut(a.body, "\n\n")
			document, ok := strings.CutPrefix(rest, "event: error\ndata: ")
			if a.status != 200 || first != `data: {"text":"Bl"}` || !ok || !strings.HasSuffix(document, "}\n\n") {
				t.Fatalf("%d %q", a.status, a.body)
			}
			p := readProblem(t, document)
			if p.Type != server.TypePrefix+test.kind || p.Status != test.status || (p.RetryAfter > 0) != (test.wait != "") {
				t.Errorf("%+v", p)
			}
		})
	}
}

func TestStatusSaysWhatTheClientKnows(t *testing.T) {
	swapped := time.Date(2026, 11, 24, 12, 0, 0, 5000, time.UTC)
	url := host(t, &fake{status: client.Status{Ready: true, Generation: 7, SwappedAt: swapped, Draining: 2, Predecessor: 6, Rescued: 5}})
	a := get(t, url+"/status")
	const want = `{"generation":7,"swapped_at":"2026-11-24T12:00:00.000005Z","draining":2,"predecessor":6,"current_refused":false,"ready":true,` +
		`"calls":0,"refused":0,"rescued":5,"waited":0,"refreshes":0,"acknowledged":0}` + "\n"
	if a.status != 200 || a.body != want {
		t.Errorf("%d %s, want %s", a.status, a.body, want)
	}
	var before map[string]any
	if err := json.Unmarshal([]byte(get(t, host(t, &fake{})+"/status").body), &before); err != nil || before["generation"] != 0.0 {
		t.Errorf("before the first key: %v, %v", before, err)
	}
	if at, ok := before["swapped_at"]; ok {
		t.Errorf("nothing was swapped yet, and yet swapped_at is %v", at)
	}
}

func TestReadinessIsTheClientsAndLivenessIsNot(t *testing.T) {
	tests := []struct {
		status client.Status
		code   int
		body   string
	}{
		{client.Status{Ready: true, Generation: 1}, 200, `{"ready":true}`},
		{client.Status{Ready: true, Reason: "the file is gone"}, 200, `{"ready":true,"reason":"the file is gone"}`},
		{client.Status{Reason: "there is no key yet"}, 503, `{"ready":false,"reason":"there is no key yet"}`},
	}
	for _, test := range tests {
		url := host(t, &fake{status: test.status})
		if a := get(t, url+"/readyz"); a.status != test.code || strings.TrimSpace(a.body) != test.body {
			t.Errorf("%d %s, want %d %s", a.status, a.body, test.code, test.body)
		}
		if a := ask(t, "HEAD", url+"/readyz", "", nil); a.status != test.code || a.body != "" {
			t.Errorf("HEAD: %d %q", a.status, a.body)
		}
		if a := get(t, url+"/livez"); a.status != 200 {
			t.Errorf("/livez: %d", a.status)
		}
	}
}
