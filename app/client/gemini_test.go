package client_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/app/sidecar"
	"github.com/keyturn/keyturn/examples/logtest"
)

const (
	oldKey  = "AQ.old-canary_key.must-not-leak"
	nextKey = "AQ.new-canary_key.must-not-leak"
)

// touchesKey says of every answer that Gemini is known to give whether another key helps.
var touchesKey = map[geminitest.Case]bool{
	geminitest.Invalid:   true,
	geminitest.NotFound:  true,
	geminitest.Expired:   true,
	geminitest.TokenType: true,
	geminitest.Leaked:    true,
	geminitest.Suspended: true,

	geminitest.ProjectDenied:   false,
	geminitest.ServiceDisabled: false,
	geminitest.ServiceBlocked:  false,
	geminitest.AddressBlocked:  false,
	geminitest.ReferrerBlocked: false,
	geminitest.Region:          false,
	geminitest.NoKey:           false,
	geminitest.TwoCredentials:  false,
	geminitest.KeyInURL:        false,
	geminitest.RateLimited:     false,
	geminitest.QuotaExceeded:   false,
	geminitest.QuotaHelp:       false,
	geminitest.BadRequest:      false,
	geminitest.NoModel:         false,
	geminitest.Internal:        false,
	geminitest.Overloaded:      false,
}

// real is a client before a stand-in of the API, through one of the SDKs.
type real struct {
	*client.Client
	api   *geminitest.Server
	file  *file
	agent *agent
	log   *logtest.Page
}

func eachSDK(t *testing.T, test func(t *testing.T, r *real)) {
	for _, sdk := range gemini.SDKs() {
		t.Run(string(sdk), func(t *testing.T) { test(t, newReal(t, sdk)) })
	}
}

// newReal returns a client that has had the old key, which works, and has no other.
func newReal(t *testing.T, sdk gemini.SDK) *real {
	t.Helper()
	r := &real{api: geminitest.NewServer(), file: newFile(), agent: &agent{}, log: &logtest.Page{}}
	backend, err := gemini.New(t.Context(), gemini.Config{SDK: sdk, BaseURL: r.api.URL})
	if err != nil {
		t.Fatal(err)
	}
	r.Client = client.New(client.Config{Keys: r.file, Backend: backend, Agent: r.agent, Log: slog.New(slog.NewTextHandler(r.log, nil))})
	stop := run(r.Client)
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		backend.Close()
		r.api.Close()
		if log := r.log.String(); strings.Contains(log, "canary") {
			t.Errorf("a key was logged:\n%s", log)
		}
	})
	r.api.Add(oldKey)
	r.put(t, oldKey, 1)
	return r
}

// put makes the file hold key, and waits until its generation serves.
func (r *real) put(t *testing.T, key string, generation uint64) {
	t.Helper()
	r.file.put(t, key, generation)
	eventually(t, "the key serves", func() bool { return r.Status().Generation == generation })
}

// generate and stream answer the same prompt, and return the whole text.
var ways = map[string]func(r *real, ctx context.Context) (client.Answer, error){
	"generate": func(r *real, ctx context.Context) (client.Answer, error) { return r.Generate(ctx, prompt) },
	"stream": func(r *real, ctx context.Context) (whole client.Answer, err error) {
		for piece, err := range r.Stream(ctx, prompt) {
			if err != nil {
				return whole, err
			}
			whole = client.Answer{Text: whole.Text + piece.Text, Generation: piece.Generation}
		}
		return whole, nil
	},
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("after 10 s still not: %s", what)
		case <-tick.C:
		}
	}
}

func TestTheRescueIsForKeysAndForNothingElse(t *testing.T) {
	for _, of := range geminitest.Cases() {
		key, known := touchesKey[of]
		if !known {
			t.Errorf("%q is in no row of the table", of)
		}
		for way, ask := range ways {
			t.Run(string(of)+"/"+way, func(t *testing.T) {
				eachSDK(t, func(t *testing.T, r *real) {
					r.api.Refuse(nextKey, of)
					r.put(t, nextKey, 2)
					answer, err := ask(r, t.Context())
					if key {
						wantRescued(t, r, answer, err)
					} else {
						wantAsItIs(t, r, of, answer, err)
					}
				})
			})
		}
	}
}

func wantRescued(t *testing.T, r *real, answer client.Answer, err error) {
	t.Helper()
	if err != nil || answer != (client.Answer{Text: geminitest.Answer(prompt), Generation: 1}) {
		t.Errorf("%+v, %v; want the predecessor's answer", answer, err)
	}
	eventually(t, "the agent is asked", func() bool { return len(r.agent.refreshes()) > 0 })
	if s := r.Status(); s.Refused != 1 || s.Rescued != 1 || s.Waited != 0 || !s.CurrentRefused || !s.Ready {
		t.Errorf("%+v", s)
	}
	if call := r.agent.refreshes()[0]; call.about != 2 || !call.refused {
		t.Errorf("the agent was asked about %+v", call)
	}
}

func wantAsItIs(t *testing.T, r *real, of geminitest.Case, answer client.Answer, err error) {
	t.Helper()
	failure, ok := errors.AsType[*gemini.Error](err)
	status, _ := of.Response("")
	if !ok || failure.Status != status || errors.Is(err, client.ErrRefused) || answer.Text != "" {
		t.Errorf("%+v, %v; want the API's own error, HTTP %d", answer, err, status)
	}
	if _, ok := err.(*gemini.Error); !ok {
		t.Errorf("it is wrapped in a %T", err)
	}
	if s := r.Status(); s.Refused != 0 || s.Rescued != 0 || s.Waited != 0 || s.Refreshes != 0 || s.CurrentRefused || s.Predecessor != 1 {
		t.Errorf("the key was touched: %+v", s)
	}
	if n := r.api.Served(1); n != 0 {
		t.Errorf("it was tried on the predecessor %d times", n)
	}
}

// The agent answers a refresh when the next key is in the file, as it does in the drill's second weather.
func TestARevokedKeyFailsNoRequest(t *testing.T) {
	const requests = 100
	eachSDK(t, func(t *testing.T, r *real) {
		r.agent.set(func(a *agent) {
			a.refresh = func(context.Context) (sidecar.Refreshed, error) {
				r.file.put(t, nextKey, 2)
				return sidecar.Refreshed{Outcome: sidecar.Published}, nil
			}
		})
		r.api.Add(nextKey)
		r.api.SetLatency(5 * time.Millisecond)
		r.api.Revoke(oldKey)
		var group sync.WaitGroup
		for range requests / len(ways) {
			for way, ask := range ways {
				group.Go(func() {
					if answer, err := ask(r, t.Context()); err != nil || answer != (client.Answer{Text: geminitest.Answer(prompt), Generation: 2}) {
						t.Errorf("%s: %+v, %v", way, answer, err)
					}
				})
			}
		}
		group.Wait()
		if s := r.Status(); s.Refreshes != 1 || s.Calls != requests || s.Rescued == 0 || s.Rescued != s.Refused || !s.Ready {
			t.Errorf("%+v; want one refresh, and each refusal rescued", s)
		}
		eventually(t, "it is acknowledged", func() bool { return len(r.agent.acknowledged()) > 0 })
		if ack := r.agent.acknowledged()[0]; ack.about != 2 {
			t.Errorf("%+v; only the second key has had success", ack)
		}
	})
}

// A stream that has begun goes on, as at Google, although its key is gone.
func TestAStreamOutlivesItsKey(t *testing.T) {
	eachSDK(t, func(t *testing.T, r *real) {
		r.api.SetStream(geminitest.Stream{Pieces: 3, Interval: 20 * time.Millisecond})
		var text strings.Builder
		for piece, err := range r.Stream(t.Context(), prompt) {
			if err != nil || piece.Generation != 1 {
				t.Fatalf("%+v, %v", piece, err)
			}
			text.WriteString(piece.Text)
			r.api.Revoke(oldKey)
		}
		if text.String() != geminitest.Answer(prompt) {
			t.Errorf("%q", &text)
		}
	})
}

// What a stream says of the key after a piece can't be made undone, but the next request knows.
func TestAStreamThatBreaksOnItsKeyIsNotRunAgain(t *testing.T) {
	eachSDK(t, func(t *testing.T, r *real) {
		r.api.Add(nextKey)
		r.put(t, nextKey, 2)
		r.api.SetStream(geminitest.Stream{Pieces: 2, End: geminitest.EndError, Case: geminitest.Suspended})
		answer, err := ways["stream"](r, t.Context())
		if gemini.FaultOf(err) != gemini.FaultKey || errors.Is(err, client.ErrRefused) || answer.Text == "" || answer.Generation != 2 {
			t.Errorf("%+v, %v", answer, err)
		}
		if strings.Contains(err.Error(), "canary") {
			t.Errorf("the error quotes the key: %v", err)
		}
		if answer, err := r.Generate(t.Context(), prompt); err != nil || answer.Generation != 1 {
			t.Errorf("%+v, %v", answer, err)
		}
	})
}
