package client_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/examples/logtest"
)

func TestARequestFinishesOnTheKeyThatItBeganWith(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.set(func(a *api) { a.latency = time.Second })
		first := r.asking(r.Context())
		r.put("two", 2)
		second := r.asking(r.Context())
		r.put("three", 3)
		r.api.set(func(a *api) { a.latency = 0 })
		r.ask(3)
		if s := r.Status(); s.Draining != 1 || s.Predecessor != 2 || s.Generation != 3 {
			r.Errorf("%+v; want generation 1 in use and no longer leasable, and 2 in reserve", s)
		}
		for i, done := range []<-chan outcome{first, second} {
			if o := <-done; o.err != nil || o.Generation != uint64(i+1) || o.at != time.Second {
				r.Errorf("request %d: %+v", i+1, o)
			}
		}
		if s := r.Status(); s.Draining != 0 || s.Calls != 3 || s.Refused != 0 || s.Waited != 0 {
			r.Errorf("%+v", s)
		}
		r.wantCalls("one two three")
		r.wantLogged("swapped the key", 3)
	})
}

func TestAKeyThatEqualsAnOlderOneIsANewGeneration(t *testing.T) {
	story(t, func(r *rig) {
		for i, key := range []string{"one", "two", "one"} {
			r.put(key, uint64(i+1))
			r.ask(uint64(i + 1))
		}
		r.wantCalls("one two one")
	})
}

// A repair gives the same bytes another file.
func TestARepairMakesNoGeneration(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		swapped := r.Status().SwappedAt
		r.sleep(time.Minute)
		r.put("one", 2)
		r.ask(1)
		if s := r.Status(); s.Generation != 1 || s.SwappedAt != swapped || s.Predecessor != 0 {
			r.Errorf("%+v", s)
		}
	})
}

func TestAFileThatGoesBadLeavesTheLastKeyInForce(t *testing.T) {
	story(t, func(r *rig) {
		r.file.fail(errors.New("key: no such file: start the agent"))
		synctest.Wait()
		if s := r.Status(); s.Ready || s.Reason != "key: no such file: start the agent" {
			r.Errorf("before the first key: %+v", s)
		}
		r.put("one", 1)
		r.wantReady(true)
		r.file.fail(keyfile.ErrEmpty)
		r.ask(1)
		if s := r.Status(); !s.Ready || s.Reason != keyfile.ErrEmpty.Error() {
			r.Errorf("a bad file: %+v", s)
		}
		r.put("one", 1)
		r.wantReady(true)
		r.wantLogged("holds no valid key", 2)
		r.wantLogged("holds a valid key", 2)
	})
}

// collect ranges over a stream and returns its pieces and its error.
func (r *rig) collect(ctx context.Context) (pieces []client.Answer, err error) {
	for piece, e := range r.Stream(ctx, prompt) {
		if err != nil {
			r.Errorf("after the error %v comes %v, %v", err, piece, e)
		}
		if err = e; err == nil {
			pieces = append(pieces, piece)
		}
	}
	return pieces, err
}

func TestAStreamIsOfOneGenerationWhateverHappensMeanwhile(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		var pieces []client.Answer
		for piece, err := range r.Stream(r.Context(), prompt) {
			if err != nil {
				r.Error(err)
			}
			pieces = append(pieces, piece)
			r.api.refuse(invalid, "one")
			r.put("two", 2)
			r.ask(2)
		}
		if want := []client.Answer{{Text: "Bl", Generation: 1}, {Text: "ue.", Generation: 1}}; !slices.Equal(pieces, want) {
			r.Errorf("%+v", pieces)
		}
		r.wantCalls("one two two")
	})
}

func TestEachRangeOverAStreamIsARequest(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		stream := r.Stream(r.Context(), prompt)
		for range 2 {
			for range stream {
			}
		}
		r.wantCalls("one one")
	})
}

func TestAStreamWithoutTextStillSaysItsGeneration(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.set(func(a *api) { a.pieces = nil })
		pieces, err := r.collect(r.Context())
		if want := []client.Answer{{Generation: 1}}; err != nil || !slices.Equal(pieces, want) {
			r.Errorf("%+v, %v", pieces, err)
		}
		for range r.Stream(r.Context(), prompt) {
			break // whoever leaves then is not called again
		}
	})
}

func TestAnAbandonedStreamIsOverAtOnce(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.set(func(a *api) { a.interval = time.Hour })
		for piece, err := range r.Stream(r.Context(), prompt) {
			if err != nil || piece.Generation != 1 {
				r.Errorf("%+v, %v", piece, err)
			}
			break
		}
		synctest.Wait()
		if acks := r.agent.acknowledged(); len(acks) != 1 {
			r.Errorf("%v; a piece is a success", acks)
		}
		r.put("two", 2)
		r.put("three", 3)
		if s := r.Status(); s.Draining != 0 || s.Refused != 0 {
			r.Errorf("%+v", s)
		}
		r.wantElapsed(0)
	})
}

func TestACallerThatPanicsHoldsNoKey(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		func() {
			defer func() { recover() }()
			for range r.Stream(r.Context(), prompt) {
				panic("in the caller")
			}
		}()
		r.put("two", 2)
		r.put("three", 3)
		if n := r.Status().Draining; n != 0 {
			r.Errorf("%d generations are still in use", n)
		}
	})
}

// After a piece there is no way back, and Google lets a stream outlive its key anyway.
func TestARefusalAfterAPieceComesOut(t *testing.T) {
	story(t, func(r *rig) {
		r.put("zero", 1)
		r.put("one", 2)
		r.api.set(func(a *api) { a.pieces = []any{"Bl", invalid} })
		pieces, err := r.collect(r.Context())
		if len(pieces) != 1 || !errors.Is(err, invalid) || errors.Is(err, client.ErrRefused) {
			r.Errorf("%+v, %v", pieces, err)
		}
		r.wantCalls("one")
		r.ask(1) // but the next request knows
		r.wantElapsed(0)
	})
}

func TestWhatDoesNotSpeakOfTheKeyComesOutAsItIs(t *testing.T) {
	faults := []gemini.Fault{gemini.FaultQuota, gemini.FaultConfig, gemini.FaultRequest, gemini.FaultUnavailable, gemini.FaultTruncated}
	for _, fault := range faults {
		t.Run(string(fault), func(t *testing.T) {
			story(t, func(r *rig) {
				r.put("zero", 1)
				r.put("one", 2)
				said := &gemini.Error{Fault: fault, Status: 500, RetryAfter: 7 * time.Second}
				r.api.refuse(said, "one")
				for range 3 {
					if answer, err := r.Generate(r.Context(), prompt); err != error(said) || answer != (client.Answer{}) {
						r.Errorf("%+v, %v", answer, err)
					}
					if pieces, err := r.collect(r.Context()); err != error(said) || len(pieces) > 0 {
						r.Errorf("%+v, %v", pieces, err)
					}
				}
				r.wantCalls("one one one one one one")
				r.sleep(time.Minute)
				s := r.Status()
				if s.Refused != 0 || s.CurrentRefused || s.Predecessor != 1 || len(r.agent.refreshes()) > 0 || len(r.agent.acknowledged()) > 0 || r.api.probes(r.start) != nil {
					r.Errorf("the key was touched: %+v", s)
				}
				r.wantReady(true)
			})
		})
	}
}

func TestAKeyThatNeverChangesServes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := newAPI()
		c := client.New(client.Config{Keys: client.Static(newKey(t, "only")), Backend: api})
		stop := run(c)
		synctest.Wait()
		if answer, err := c.Generate(t.Context(), prompt); err != nil || answer.Generation != 1 {
			t.Errorf("%+v, %v", answer, err)
		}
		api.refuse(invalid, "only")
		if _, err := c.Generate(t.Context(), prompt); !errors.Is(err, client.ErrRefused) {
			t.Error(err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestNeitherTheStatusNorTheLogHoldsAKey(t *testing.T) {
	const canary = "AQ.Ab8RN6-canary_key.must-not-leak"
	story(t, func(r *rig) {
		r.put(canary, 1)
		r.api.refuse(invalid, canary)
		r.askRefused()
		var b logtest.Page
		slog.New(slog.NewTextHandler(&b, nil)).Info("status", "status", r.Status())
		if strings.Contains(r.log.String()+b.String(), canary) {
			r.Errorf("the key came out:\n%s%s", r.log, &b)
		}
	})
}
