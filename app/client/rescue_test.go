package client_test

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/app/sidecar"
)

var outcomePublished = sidecar.Refreshed{Outcome: sidecar.Published}

// The old key is revoked while a request is on its way, and the next one is there already.
func TestARefusedRequestGoesToTheNewerGeneration(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		r.api.set(func(a *api) { a.latency = time.Second })
		done := r.asking(r.Context())
		r.put("two", 2)
		if o := <-done; o.err != nil || o.Generation != 2 || o.at != 2*time.Second {
			r.Errorf("%+v", o)
		}
		r.wantCalls("one two")
		s := r.Status()
		if s.Calls != 1 || s.Refused != 1 || s.Rescued != 1 || s.Waited != 0 || s.Predecessor != 0 || s.CurrentRefused {
			r.Errorf("%+v", s)
		}
		if n := len(r.agent.refreshes()); n != 0 {
			r.Errorf("%d refreshes, although the newer key is there", n)
		}
	})
}

func TestThePredecessorServesWhileARefreshIsUnderWay(t *testing.T) {
	story(t, func(r *rig) {
		r.agent.refresh = func(ctx context.Context) (sidecar.Refreshed, error) {
			pass(ctx, 1500*time.Millisecond)
			return outcomePublished, ctx.Err()
		}
		r.put("zero", 1)
		r.put("one", 2)
		r.api.refuse(invalid, "one")
		r.ask(1) // the request that finds it out
		r.ask(1) // and the next one, without asking in vain
		r.wantCalls("one zero zero")
		r.wantElapsed(0)
		r.wantReady(true)
		if got := r.agent.refreshes(); len(got) != 1 || got[0].about != 2 || !got[0].refused {
			r.Errorf("%v; want a refresh in the name of the refused file", got)
		}
		r.sleep(1500 * time.Millisecond)
		select {
		case <-r.file.checked: // the agent says that it has published
		default:
			r.Error("the file was not looked at")
		}
		r.put("two", 3)
		r.ask(3)
		if s := r.Status(); s.Predecessor != 1 || s.Rescued != 1 || s.Waited != 0 {
			r.Errorf("%+v; the one that served stays in reserve, not the refused one", s)
		}
	})
}

func TestAStreamIsRescuedBeforeItsFirstPiece(t *testing.T) {
	story(t, func(r *rig) {
		r.put("zero", 1)
		r.put("one", 2)
		r.api.refuse(invalid, "one")
		pieces, err := r.collect(r.Context())
		if want := []client.Answer{{Text: "Bl", Generation: 1}, {Text: "ue.", Generation: 1}}; err != nil || !slices.Equal(pieces, want) {
			r.Errorf("%+v, %v", pieces, err)
		}
		if s := r.Status(); s.Rescued != 1 {
			r.Errorf("%+v", s)
		}
	})
}

func TestARequestWaitsForTheKeyThatTheRefreshBrings(t *testing.T) {
	story(t, func(r *rig) {
		r.agent.refresh = func(ctx context.Context) (sidecar.Refreshed, error) {
			pass(ctx, 300*time.Millisecond)
			go r.file.put(r, "two", 3)
			return outcomePublished, ctx.Err()
		}
		r.put("zero", 1)
		r.put("one", 2)
		r.api.refuse(invalid, "zero", "one")
		r.ask(3)
		r.wantElapsed(300 * time.Millisecond)
		r.wantCalls("one zero two")
		r.wantReady(true)
		if s := r.Status(); s.Calls != 1 || s.Refused != 2 || s.Rescued != 1 || s.Waited != 1 || s.Refreshes != 1 {
			r.Errorf("%+v", s)
		}
	})
}

// The write may reach the store's node a moment after the old key died.
func TestARefreshIsRepeatedWithBackoffUntilThereIsAnotherKey(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		r.askRefused()
		r.sleep(28 * time.Second)
		var at []time.Duration
		for _, refresh := range r.agent.refreshes() {
			at = append(at, refresh.at.Sub(r.start).Round(time.Millisecond))
		}
		const ms = time.Millisecond
		if want := []time.Duration{0, 50 * ms, 150 * ms, 350 * ms, 750 * ms, 1550 * ms, 3150 * ms, 6350 * ms, 11350 * ms, 16350 * ms,
			21350 * ms, 26350 * ms}; !slices.Equal(at, want) {
			r.Errorf("the agent was asked at %v, want %v", at, want)
		}
		r.put("two", 2)
		r.sleep(time.Minute)
		if n := len(r.agent.refreshes()); n != 12 {
			r.Errorf("the agent was asked %d times more, although there is another key", n-12)
		}
	})
}

func TestAThousandRequestsThatFailTogetherAskOnce(t *testing.T) {
	requests := 1000
	if isRaced() { // whose detector crashes now and then beyond 255 goroutines: tsan_rtl.cpp:346, CHECK failed
		requests = 200
	}
	story(t, func(r *rig) {
		r.agent.refresh = func(ctx context.Context) (sidecar.Refreshed, error) {
			pass(ctx, 20*time.Millisecond)
			go r.file.put(r, "two", 2)
			return outcomePublished, nil
		}
		r.put("one", 1)
		r.api.set(func(a *api) { a.latency = 10 * time.Millisecond })
		r.api.refuse(invalid, "one")
		done := make(chan outcome, requests)
		for i := range requests {
			go func() {
				ctx := r.Context()
				var o outcome
				if i%2 == 0 {
					o.Answer, o.err = r.Generate(ctx, prompt)
				} else {
					for o.Answer, o.err = range r.Stream(ctx, prompt) {
					}
				}
				o.at = r.elapsed()
				done <- o
			}()
		}
		for range requests {
			if o := <-done; o.err != nil || o.Generation != 2 || o.at != 40*time.Millisecond {
				r.Fatalf("%+v", o)
			}
		}
		s := r.Status()
		if n := len(r.agent.refreshes()); n != 1 || s.Refreshes != 1 || s.Refused != uint64(requests) || s.Rescued != s.Refused || s.Waited != s.Refused {
			r.Errorf("%d refreshes, %+v", n, s)
		}
		r.wantLogged("Gemini refuses the key", 1)
		r.wantReady(true)
	})
}

func isRaced() bool {
	info, ok := debug.ReadBuildInfo()
	return ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"})
}

// A rollback brings an older key back, which is no other key than itself.
func TestAKeyThatWasBroughtBackDoesNotStandInForItself(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.put("two", 2)
		r.api.refuse(invalid, "two")
		r.ask(1)
		r.put("one", 3)
		if s := r.Status(); s.Predecessor != 0 {
			r.Errorf("%+v", s)
		}
		r.ask(3)
		r.api.refuse(invalid, "one")
		r.askRefused()
		r.wantCalls("two one one one")
	})
}

// hooked is a backend that calls hook before it makes a client.
type hooked struct {
	*api
	hook func(key string)
}

func (h *hooked) Client(key keyfile.Key) gemini.Client {
	h.hook(key.Reveal())
	return h.api.Client(key)
}

// What still serves then is the generation before it, which must not be lost.
func TestAKeyThatIsRefusedWhileTheNextIsTakenIsNoPredecessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, backend := newFile(), &hooked{api: newAPI()}
		c := client.New(client.Config{Keys: file, Backend: backend})
		ask := func() {
			t.Helper()
			if answer, err := c.Generate(t.Context(), prompt); err != nil || answer.Generation != 1 {
				t.Errorf("%+v, %v; want an answer of generation 1", answer, err)
			}
		}
		backend.hook = func(key string) {
			if key == "three" {
				ask() // on the second key first, which is refused
			}
		}
		defer run(c)()
		backend.refuse(invalid, "two", "three")
		for i, key := range []string{"one", "two", "three"} {
			file.put(t, key, uint64(i+1))
			synctest.Wait()
		}
		if s := c.Status(); s.Generation != 3 || s.Predecessor != 1 || s.Draining != 0 {
			t.Errorf("%+v", s)
		}
		ask()
		if calls := backend.calls(); calls != "two one three one" {
			t.Errorf("the calls were made with %q", calls)
		}
	})
}

func TestARequestIsRunAgainTwiceAtMost(t *testing.T) {
	story(t, func(r *rig) {
		r.agent.refresh = func(context.Context) (sidecar.Refreshed, error) {
			n := r.Status().Generation + 1
			key := fmt.Sprint("key", n)
			r.api.refuse(invalid, key)
			go r.file.put(r, key, n)
			return outcomePublished, nil
		}
		r.api.refuse(invalid, "key1")
		r.put("key1", 1)
		r.askRefused()
		r.wantCalls("key1 key2 key3")
		if s := r.Status(); s.Refused != 3 || s.Rescued != 0 {
			r.Errorf("%+v", s)
		}
		r.stop()
	})
}

func TestTheErrorOfARefusedRequestSaysBoth(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		_, err := r.Generate(r.Context(), prompt)
		if !errors.Is(err, client.ErrRefused) || gemini.FaultOf(err) != gemini.FaultKey || !errors.Is(err, invalid) {
			r.Errorf("%v", err)
		}
		if _, err := r.Generate(r.Context(), prompt); err != client.ErrRefused {
			r.Errorf("%v; the second one was not sent", err)
		}
	})
}

func TestWithoutAnAgentTheFileAloneBringsTheNextKey(t *testing.T) {
	storyWithoutAgent(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		done := r.asking(r.Context())
		r.sleep(1900 * time.Millisecond)
		r.put("two", 2)
		if o := <-done; o.err != nil || o.Generation != 2 || o.at != 1900*time.Millisecond {
			r.Errorf("%+v", o)
		}
		if s := r.Status(); s.Refreshes != 0 || s.Acknowledged != 0 {
			r.Errorf("%+v", s)
		}
		synctest.Wait()
		r.wantLogged("agent", 0)
	})
}
