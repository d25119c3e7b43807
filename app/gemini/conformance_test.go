package gemini_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/app/keyfile"
)

// canary is the key that must never come out of anything but the header.
const canary = "AQ.Ab8RN6-canary_key.must-not-leak"

const prompt = "Why is the sky blue?"

// eachSDK runs the test against a stand-in of its own, once for each SDK.
func eachSDK(t *testing.T, test func(t *testing.T, api *geminitest.Server, backend *gemini.Backend)) {
	for _, sdk := range gemini.SDKs() {
		t.Run(string(sdk), func(t *testing.T) {
			t.Parallel()
			api := geminitest.NewServer()
			t.Cleanup(api.Close)
			test(t, api, newBackend(t, sdk, api.URL))
		})
	}
}

func newBackend(t testing.TB, sdk gemini.SDK, url string) *gemini.Backend {
	t.Helper()
	backend, err := gemini.New(t.Context(), gemini.Config{SDK: sdk, BaseURL: url})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	return backend
}

func newKey(t testing.TB, s string) keyfile.Key {
	t.Helper()
	key, err := keyfile.NewKey([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// collect ranges over a stream and returns its pieces and its error.
func collect(ctx context.Context, c gemini.Client, prompt string) (pieces []string, err error) {
	for piece, e := range c.Stream(ctx, prompt) {
		if e != nil {
			return pieces, e
		}
		pieces = append(pieces, piece)
	}
	return pieces, nil
}

// eventually waits until what holds, and says what it waited for if it never does.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); !holds(); {
		select {
		case <-deadline:
			t.Fatalf("after 10 s still not: %s", what)
		case <-tick.C:
		}
	}
}

func TestAnAcceptedKeyGetsItsAnswer(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		api.Add(canary)
		client := backend.Client(newKey(t, canary))
		if text, err := client.Generate(t.Context(), prompt); err != nil || text != geminitest.Answer(prompt) {
			t.Errorf("Generate: %q, %v", text, err)
		}
		pieces, err := collect(t.Context(), client, prompt)
		if err != nil || len(pieces) != 3 || strings.Join(pieces, "") != geminitest.Answer(prompt) {
			t.Errorf("Stream: %q, %v", pieces, err)
		}
		if err := client.Probe(t.Context()); err != nil {
			t.Errorf("Probe: %v", err)
		}
		if got := api.Served(1); got != 3 {
			t.Errorf("the key answered %d requests to the end, want 3: %+v", got, api.Requests())
		}
		if n := api.KeysInURLs(); n != 0 {
			t.Errorf("%d keys came in a URL", n)
		}
	})
}

func TestEachClientUsesItsOwnKeyAtTheSameTime(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		const clients, calls = 8, 20
		done := make(chan error, clients)
		for i := range clients {
			name := strings.Repeat("k", i+1)
			api.Add(name)
			client := backend.Client(newKey(t, name))
			go func() {
				for range calls {
					if _, err := client.Generate(t.Context(), prompt); err != nil {
						done <- err
						return
					}
				}
				done <- nil
			}()
		}
		for range clients {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		for i := range clients {
			if got := api.Served(i + 1); got != calls {
				t.Errorf("key %d served %d requests, want %d", i+1, got, calls)
			}
		}
	})
}

func TestPiecesArriveAsTheyAreSent(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		api.Add(canary)
		api.SetStream(geminitest.Stream{Pieces: 2, Interval: time.Hour})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var last error
		pieces := 0
		for _, err := range backend.Client(newKey(t, canary)).Stream(ctx, prompt) {
			if last = err; err == nil {
				pieces++
				cancel() // the first piece is here, although the second one comes in an hour
			}
		}
		if pieces != 1 || !errors.Is(last, context.Canceled) {
			t.Errorf("%d pieces, then %v", pieces, last)
		}
	})
}

func TestLeavingAStreamEarlyEndsTheRequest(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		api.Add(canary)
		api.SetStream(geminitest.Stream{Pieces: 2, Interval: time.Hour})
		for range backend.Client(newKey(t, canary)).Stream(t.Context(), prompt) {
			break
		}
		eventually(t, "the server noticed", func() bool { return api.Running() == 0 })
		eventually(t, "the connection is gone", func() bool { open, _ := api.Connections(); return open == 0 })
	})
}

func TestAnEndedContextEndsTheCallAsItself(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		api.Add(canary)
		api.SetLatency(time.Hour)
		client := backend.Client(newKey(t, canary))
		for name, do := range calls {
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() { result <- do(ctx, client) }()
			eventually(t, name+" has arrived", func() bool { return api.Running() == 1 })
			cancel()
			if err := <-result; !errors.Is(err, context.Canceled) || gemini.FaultOf(err) != "" {
				t.Errorf("%s, cancelled: %v", name, err)
			}
			eventually(t, name+" is gone", func() bool { return api.Running() == 0 })

			ctx, cancel = context.WithTimeout(t.Context(), time.Millisecond)
			if err := do(ctx, client); !errors.Is(err, context.DeadlineExceeded) || gemini.FaultOf(err) != "" {
				t.Errorf("%s, past its deadline: %v", name, err)
			}
			cancel()
			eventually(t, name+" is gone", func() bool { return api.Running() == 0 })
		}
	})
}

// calls are the three ways to use a client, each reduced to its error.
var calls = map[string]func(context.Context, gemini.Client) error{
	"Generate": func(ctx context.Context, c gemini.Client) error { _, err := c.Generate(ctx, prompt); return err },
	"Stream":   func(ctx context.Context, c gemini.Client) error { _, err := collect(ctx, c, prompt); return err },
	"Probe":    func(ctx context.Context, c gemini.Client) error { return c.Probe(ctx) },
}

func TestARedirectIsNotFollowedAndTheKeyStays(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		var visits atomic.Int32
		other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			visits.Add(1)
			t.Errorf("the other host got a request, with key: %v", r.Header.Get("X-Goog-Api-Key") != "")
		}))
		defer other.Close()
		client := backend.Client(newKey(t, canary))
		for name, do := range calls {
			for _, status := range []int{301, 302, 303, 307, 308} {
				api.Fail(1, status, http.Header{"Location": {other.URL + "/v1beta/models"}}, "")
				var e *gemini.Error
				if err := do(t.Context(), client); !errors.As(err, &e) || e.Fault != gemini.FaultConfig || e.Status != status {
					t.Errorf("%s, %d: %v", name, status, err)
				}
			}
		}
	})
}

func TestAStreamIsDoneOnlyWithAFinishReason(t *testing.T) {
	ends := []struct {
		name   string
		stream geminitest.Stream
		fault  gemini.Fault
		status int
		reason string
	}{
		{"no finishReason", geminitest.Stream{Pieces: 2, End: geminitest.EndUnfinished}, gemini.FaultTruncated, 200, ""},
		{"connection cut", geminitest.Stream{Pieces: 2, End: geminitest.EndCut}, gemini.FaultTruncated, 200, ""},
		{"overloaded", geminitest.Stream{Pieces: 2, End: geminitest.EndError, Case: geminitest.Overloaded},
			gemini.FaultUnavailable, 503, "UNAVAILABLE"},
		{"quota", geminitest.Stream{Pieces: 2, End: geminitest.EndError, Case: geminitest.QuotaExceeded},
			gemini.FaultQuota, 429, "RESOURCE_EXHAUSTED"},
		{"key expired", geminitest.Stream{Pieces: 2, End: geminitest.EndError, Case: geminitest.Expired},
			gemini.FaultKey, 400, "API_KEY_INVALID"},
	}
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		api.Add(canary)
		client := backend.Client(newKey(t, canary))
		for _, end := range ends {
			api.SetStream(end.stream)
			pieces, err := collect(t.Context(), client, prompt)
			if got := strings.Join(pieces, ""); got != geminitest.Answer(prompt) {
				t.Errorf("%s: the pieces before the end are lost: %q", end.name, got)
			}
			var e *gemini.Error
			if !errors.As(err, &e) || e.Fault != end.fault || e.Status != end.status || e.Reason != end.reason {
				t.Errorf("%s: %#v", end.name, err)
			}
		}
	})
}

func TestABlockedPromptOrAnswerIsTheRequestsFault(t *testing.T) {
	verdicts := []struct {
		verdict geminitest.Verdict
		reason  string
	}{
		{geminitest.Verdict{BlockReason: "SAFETY"}, "SAFETY"},
		{geminitest.Verdict{BlockReason: "PROHIBITED_CONTENT"}, "PROHIBITED_CONTENT"},
		{geminitest.Verdict{FinishReason: "SAFETY"}, "SAFETY"},
		{geminitest.Verdict{FinishReason: "RECITATION"}, "RECITATION"},
		{geminitest.Verdict{FinishReason: "SPII"}, "SPII"},
	}
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		api.Add(canary)
		client := backend.Client(newKey(t, canary))
		for _, v := range verdicts {
			api.SetVerdict(v.verdict)
			for _, name := range []string{"Generate", "Stream"} {
				var e *gemini.Error
				err := calls[name](t.Context(), client)
				if !errors.As(err, &e) || e.Fault != gemini.FaultRequest || e.Reason != v.reason {
					t.Errorf("%s, %+v: %v", name, v.verdict, err)
				}
			}
		}
		api.SetVerdict(geminitest.Verdict{FinishReason: "MAX_TOKENS"})
		if _, err := client.Generate(t.Context(), prompt); err != nil {
			t.Errorf("an answer that reached its limit of tokens is an answer: %v", err)
		}
	})
}

func TestAKeyThatIsMissingOrABackendThatIsClosedSendsNothing(t *testing.T) {
	eachSDK(t, func(t *testing.T, api *geminitest.Server, backend *gemini.Backend) {
		t.Cleanup(func() {
			if _, total := api.Connections(); total != 0 {
				t.Errorf("%d connections were opened", total)
			}
		})
		for name, do := range calls {
			if err := do(t.Context(), backend.Client(keyfile.Key{})); gemini.FaultOf(err) != gemini.FaultConfig {
				t.Errorf("%s without a key: %v", name, err)
			}
		}
		backend.Close()
		backend.Close()
		for name, do := range calls {
			if err := do(t.Context(), backend.Client(newKey(t, canary))); !errors.Is(err, gemini.ErrClosed) {
				t.Errorf("%s after Close: %v", name, err)
			}
		}
	})
}

func TestAnEndpointMayHaveAPathPrefix(t *testing.T) {
	for _, sdk := range gemini.SDKs() {
		for _, prefix := range []string{"/", "/gateway", "/gateway/gemini/"} {
			api := geminitest.New()
			api.Add(canary)
			host := httptest.NewServer(http.StripPrefix(strings.TrimSuffix(prefix, "/"), api.Handler()))
			client := newBackend(t, sdk, host.URL+prefix).Client(newKey(t, canary))
			for name, do := range calls {
				if err := do(t.Context(), client); err != nil {
					t.Errorf("%s, %s under %s: %v", sdk, name, prefix, err)
				}
			}
			host.Close()
		}
	}
}
