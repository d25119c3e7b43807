package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
)

var overloaded = &gemini.Error{Fault: gemini.FaultUnavailable, Status: 503}

func TestOnceARequestHasWaitedInVainFurtherOnesFailAtOnce(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.put("new", 2)
		r.api.refuse(invalid, "old", "new")
		r.askRefused()
		r.wantElapsed(2 * time.Second)
		r.wantReady(false)
		r.wantCalls("new old")
		for range 3 {
			r.askRefused()
			if _, err := r.collect(r.Context()); !errors.Is(err, client.ErrRefused) {
				r.Error(err)
			}
		}
		r.wantCalls("new old")
		r.wantElapsed(2 * time.Second)
		if s := r.Status(); s.Reason != client.ErrRefused.Error() || !s.CurrentRefused || s.Predecessor != 0 || s.Waited != 1 {
			r.Errorf("%+v", s)
		}
		r.wantLogged("no key works", 1)
	})
}

// Only those who come after it fail at once: the next key may come in the time that the others have left.
func TestARequestThatGivesUpTakesNobodyElsesTime(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		first := r.asking(r.Context())
		r.sleep(1500 * time.Millisecond)
		second := r.asking(r.Context())
		if o := <-first; !errors.Is(o.err, client.ErrRefused) || o.at != 2*time.Second {
			r.Errorf("the first: %+v", o)
		}
		r.sleep(1400 * time.Millisecond)
		r.askRefused()
		r.wantElapsed(3400 * time.Millisecond)
		r.put("two", 2)
		if o := <-second; o.err != nil || o.Generation != 2 || o.at != 3400*time.Millisecond {
			r.Errorf("the second: %+v", o)
		}
	})
}

func TestAProbeMakesItReadyAgain(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		r.askRefused()
		r.sleep(time.Minute)
		r.wantReady(false)
		r.api.accept("one")
		before := r.elapsed()
		for !r.Status().Ready && r.elapsed() < before+time.Hour {
			r.sleep(10 * time.Millisecond)
		}
		if waited := r.elapsed() - before; waited > 5*time.Second {
			r.Errorf("it was ready after %v, want 5 s at most", waited)
		}
		r.wantReady(true)
		r.ask(1)
		r.wantLogged("ready again", 1)

		before = r.elapsed() // and what was in vain then is forgotten
		r.api.refuse(invalid, "one")
		r.askRefused()
		if waited := r.elapsed() - before; waited != 2*time.Second {
			r.Errorf("a request waited for %v", waited)
		}
	})
}

// A program that isn't ready gets no requests, so it has to find out by itself.
func TestANewGenerationIsProbedAtOnceWhileNoKeyWorks(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one", "two")
		r.askRefused()
		r.sleep(time.Minute)
		before := len(r.api.probes(r.start))
		r.put("two", 2)
		if n := len(r.api.probes(r.start)); n != before+1 {
			r.Errorf("%d probes of a new key, want 1 at once", n-before)
		}
		asked := r.agent.refreshes()
		if last := asked[len(asked)-1]; !r.Status().CurrentRefused || last.about != 2 || last.at != time.Now() {
			r.Errorf("%+v, and the agent was asked last: %+v; a refused probe is a refusal", r.Status(), last)
		}
		r.wantReady(false)
		r.put("three", 3)
		r.wantReady(true)
		r.wantCalls("one")
		r.ask(3)
	})
}

func TestANewGenerationIsWaitedForAnew(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one", "two")
		r.askRefused()
		r.put("two", 2)
		r.askRefused()
		r.wantElapsed(4 * time.Second)
		r.wantLogged("no key works", 1)
	})
}

func TestARequestThatIsAnsweredMakesItReadyAgain(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		r.askRefused()
		r.api.set(func(a *api) { a.probing = overloaded })
		r.put("two", 2)
		r.wantReady(false)
		if s := r.Status(); s.Reason == client.ErrRefused.Error() {
			r.Error("it says that a key is refused of which nothing is known")
		}
		r.ask(2)
		r.wantReady(true)
	})
}

// The first piece tells what there is to know of the key; the last one may come in minutes.
func TestAStreamThatHasBegunMakesItReadyAgain(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		r.askRefused()
		r.api.set(func(a *api) { a.probing, a.interval = overloaded, time.Minute })
		r.put("two", 2)
		for range r.Stream(r.Context(), prompt) {
			r.wantReady(true)
			r.wantElapsed(2 * time.Second)
			break
		}
	})
}

// A request that fails for another reason tells nothing of the key.
func TestWhatIsNoAcceptanceDoesNotMakeItReady(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		r.askRefused()
		r.api.refuse(overloaded, "two")
		r.put("two", 2)
		if _, err := r.Generate(r.Context(), prompt); !errors.Is(err, overloaded) {
			r.Error(err)
		}
		r.sleep(time.Minute)
		r.wantReady(false)
	})
}

// An old generation may answer a long request to the end, which rescues nobody.
func TestALongRequestOnAnOldKeyDoesNotMakeItReady(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.api.set(func(a *api) { a.latency = time.Minute })
		long := r.asking(r.Context())
		r.api.set(func(a *api) { a.latency = 0 })
		r.put("new", 2)
		r.put("newer", 3)
		r.api.refuse(invalid, "new", "newer")
		r.askRefused()
		if o := <-long; o.err != nil || o.Generation != 1 {
			r.Errorf("%+v", o)
		}
		r.wantReady(false)
		before := r.elapsed()
		r.askRefused()
		r.wantElapsed(before)
	})
}

func TestAContextThatEndsWhileARequestWaitsEndsItAsItself(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		cancelled, cancel := context.WithCancel(r.Context())
		waits := r.asking(cancelled) // refused itself, unlike the next one
		short, cancel2 := context.WithTimeout(r.Context(), 700*time.Millisecond)
		defer cancel2()
		if o := <-r.asking(short); o.err != context.DeadlineExceeded || o.at != 700*time.Millisecond {
			r.Errorf("%+v", o)
		}
		cancel()
		if o := <-waits; o.err != context.Canceled || o.at != 700*time.Millisecond {
			r.Errorf("%+v", o)
		}
		if _, err := r.collect(cancelled); err != context.Canceled {
			r.Errorf("a stream: %v", err)
		}
		r.wantReady(true) // nobody has waited for long enough to say so
	})
}

// A model that takes minutes leaves its request all of its patience for the next key.
func TestTheTimeThatACallTakesIsNoTimeOfWaiting(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one", "two")
		done := r.asking(r.Context())
		r.sleep(time.Second)
		r.api.set(func(a *api) { a.latency = time.Minute })
		r.put("two", 2)
		r.api.set(func(a *api) { a.latency = 0 })
		r.sleep(time.Minute + 900*time.Millisecond)
		r.put("three", 3)
		if o := <-done; o.err != nil || o.Generation != 3 || o.at != 61900*time.Millisecond {
			r.Errorf("%+v", o)
		}
		if s := r.Status(); s.Waited != 1 {
			r.Errorf("%+v; one request waited", s)
		}
	})
}

// A generation is given up only by who has waited for a better one as long as anybody does.
func TestARequestAtTheEndOfItsPatienceCondemnsNoNewerKey(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one", "two")
		early := r.asking(r.Context())
		r.sleep(1500 * time.Millisecond)
		r.put("two", 2)
		r.sleep(400 * time.Millisecond)
		late := r.asking(r.Context())
		if o := <-early; !errors.Is(o.err, client.ErrRefused) || o.at != 2*time.Second {
			r.Errorf("who had waited for two seconds in all: %+v", o)
		}
		r.wantReady(true)
		r.sleep(500 * time.Millisecond)
		r.put("three", 3)
		if o := <-late; o.err != nil || o.Generation != 3 || o.at != 2500*time.Millisecond {
			r.Errorf("who could wait: %+v", o)
		}
	})
}

func TestRequestsBeforeTheFirstKeyWaitForIt(t *testing.T) {
	story(t, func(r *rig) {
		done := r.asking(r.Context())
		r.sleep(time.Second)
		r.put("one", 1)
		if o := <-done; o.err != nil || o.Generation != 1 || o.at != time.Second {
			r.Errorf("%+v", o)
		}
	})
}

func TestWithoutAKeyRequestsFailAsSuch(t *testing.T) {
	story(t, func(r *rig) {
		var at []time.Duration
		for range 3 {
			if _, err := r.Generate(r.Context(), prompt); !errors.Is(err, client.ErrNoKey) || errors.Is(err, client.ErrRefused) {
				r.Error(err)
			}
			at = append(at, r.elapsed())
		}
		if want := []time.Duration{2 * time.Second, 2 * time.Second, 2 * time.Second}; !slices.Equal(at, want) {
			r.Errorf("they failed at %v, want %v", at, want)
		}
		if s := r.Status(); s.Ready || s.Reason != client.ErrNoKey.Error() || s.Refreshes != 0 {
			r.Errorf("%+v", s)
		}
		r.put("one", 1)
		r.wantReady(true)
		if n := len(r.api.probes(r.start)); n != 1 {
			r.Errorf("%d probes of the first key after requests had failed, want 1", n)
		}
		r.ask(1)
	})
}
