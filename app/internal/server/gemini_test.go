package server_test

import (
	"context"
	"iter"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/app/internal/server"
	"github.com/keyturn/keyturn/app/keyfile"
)

const canary = "AQ.Ab8RN6-canary_key.must-not-leak"

// keys are what the test says, one after the other.
type keys chan string

func (k keys) Check() {}

func (k keys) Keys(ctx context.Context) iter.Seq2[keyfile.Reading, error] {
	return func(yield func(keyfile.Reading, error) bool) {
		for {
			select {
			case text := <-k:
				key, err := keyfile.NewKey([]byte(text))
				if !yield(keyfile.Reading{Key: key}, err) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// eachSDK serves a real client, which has the canary's key, before a stand-in of its own, once for each SDK.
func eachSDK(t *testing.T, test func(t *testing.T, url string, api *geminitest.Server, next keys)) {
	for _, sdk := range gemini.SDKs() {
		t.Run(string(sdk), func(t *testing.T) {
			t.Parallel()
			api := geminitest.NewServer()
			t.Cleanup(api.Close)
			api.Add(canary)
			backend, err := gemini.New(t.Context(), gemini.Config{SDK: sdk, BaseURL: api.URL})
			if err != nil {
				t.Fatal(err)
			}
			next := make(keys)
			c := client.New(client.Config{Keys: next, Backend: backend})
			ctx, stop := context.WithCancel(context.Background())
			ended := make(chan error)
			go func() { ended <- c.Run(ctx) }()
			t.Cleanup(func() { stop(); <-ended; backend.Close() })
			next <- canary
			url := host(t, c)
			eventually(t, "it is ready", func() bool { return get(t, url+"/readyz").status == 200 })
			test(t, url, api, next)
		})
	}
}

func TestAKeyChangesWhileAStreamRuns(t *testing.T) {
	eachSDK(t, func(t *testing.T, url string, api *geminitest.Server, next keys) {
		api.SetStream(geminitest.Stream{Pieces: 2, Interval: 300 * time.Millisecond})
		_, r := open(t, t.Context(), url)
		event(t, r)
		api.Add("another-key")
		next <- "another-key"
		eventually(t, "the next key serves", func() bool {
			return strings.HasSuffix(post(t, url+"/v1/generate", question).body, `"generation":2}`+"\n")
		})
		event(t, r)
		if got := event(t, r); got != "event: done\ndata: {\"generation\":1}" {
			t.Errorf("the stream ends on the key that it began with: %q", got)
		}
	})
}

func TestAPieceOfGeminiIsPassedOnAtOnce(t *testing.T) {
	eachSDK(t, func(t *testing.T, url string, api *geminitest.Server, _ keys) {
		api.SetStream(geminitest.Stream{Pieces: 2, Interval: time.Hour})
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		_, r := open(t, ctx, url)
		if got := event(t, r); !strings.HasPrefix(got, `data: {"text":"answer to`) {
			t.Errorf("%q", got)
		}
		leave()
		eventually(t, "Gemini's stream is given up with the caller's", func() bool { return api.Running() == 0 })
	})
}

func TestEveryErrorOfGeminiIsAProblem(t *testing.T) {
	tests := []struct {
		of     geminitest.Case
		kind   string
		status int
		wait   string
	}{
		{geminitest.Suspended, "key-refused", 503, "2"},
		{geminitest.ProjectDenied, "configuration", 502, ""},
		{geminitest.ServiceDisabled, "configuration", 502, ""},
		{geminitest.ServiceBlocked, "configuration", 502, ""},
		{geminitest.Region, "configuration", 502, ""},
		{geminitest.RateLimited, "quota", 429, ""},
		{geminitest.QuotaExceeded, "quota", 429, "26"},
		{geminitest.BadRequest, "request-refused", 400, ""},
		{geminitest.NoModel, "request-refused", 404, ""},
		{geminitest.Internal, "unavailable", 502, ""},
		{geminitest.Overloaded, "unavailable", 503, ""},
	}
	eachSDK(t, func(t *testing.T, url string, api *geminitest.Server, _ keys) {
		for _, test := range tests {
			api.Refuse(canary, test.of)
			for _, path := range []string{"/v1/generate", "/v1/stream"} {
				a := post(t, url+path, question)
				p := a.problem(t)
				if p.Type != server.TypePrefix+test.kind || p.Status != test.status || a.header.Get("Retry-After") != test.wait {
					t.Errorf("%s, %s: %+v, Retry-After %q", test.of, path, p, a.header.Get("Retry-After"))
				}
				if strings.Contains(a.body, canary) {
					t.Errorf("%s, %s shows the key: %s", test.of, path, a.body)
				}
				if test.kind == "configuration" && strings.Contains(a.body, "123456789012") {
					t.Errorf("%s, %s shows the project: %s", test.of, path, a.body)
				}
			}
			if test.kind == "key-refused" {
				if a := get(t, url+"/readyz"); a.status != http.StatusServiceUnavailable {
					t.Errorf("no key works, and /readyz says %d", a.status)
				}
				api.Add(canary)
				eventually(t, "it heals by itself", func() bool { return get(t, url+"/readyz").status == 200 })
			}
		}
	})
}

func TestAnAnswerThatTheModelWithholdsIsUnprocessable(t *testing.T) {
	eachSDK(t, func(t *testing.T, url string, api *geminitest.Server, _ keys) {
		for _, v := range []geminitest.Verdict{{BlockReason: "PROHIBITED_CONTENT"}, {FinishReason: "SAFETY"}} {
			api.SetVerdict(v)
			if p := post(t, url+"/v1/generate", question).problem(t); p.Status != 422 || p.Reason != v.BlockReason+v.FinishReason {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestAStreamThatGeminiBreaksOffEndsWithAnErrorEvent(t *testing.T) {
	eachSDK(t, func(t *testing.T, url string, api *geminitest.Server, _ keys) {
		for end, kind := range map[geminitest.End]string{
			geminitest.EndError: "unavailable", geminitest.EndUnfinished: "truncated", geminitest.EndCut: "truncated",
		} {
			api.SetStream(geminitest.Stream{Pieces: 2, End: end, Case: geminitest.Overloaded})
			a := post(t, url+"/v1/stream", question)
			text, document, ok := strings.Cut(a.body, "event: error\ndata: ")
			if !ok || a.status != 200 || strings.Count(text, "data: ") != 2 || readProblem(t, document).Type != server.TypePrefix+kind {
				t.Errorf("end %d: %d %q", end, a.status, a.body)
			}
		}
	})
}
