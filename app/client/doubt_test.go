package client_test

import (
	"slices"
	"testing"
	"time"
)

func TestARefusedKeyServesAgainOnceAProbeIsAccepted(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.put("new", 2)
		r.api.refuse(invalid, "new")
		r.ask(1)
		r.sleep(900 * time.Millisecond)
		r.api.accept("new")
		r.ask(1) // nobody has looked yet
		r.sleep(time.Second)
		r.ask(2)
		const ms = time.Millisecond
		if got, want := r.api.probes(r.start), []time.Duration{250 * ms, 500 * ms, 750 * ms, 1000 * ms}; !slices.Equal(got, want) {
			r.Errorf("probed at %v, want %v", got, want)
		}
		r.wantCalls("new old old new")
		if s := r.Status(); s.CurrentRefused || s.Refused != 1 {
			r.Errorf("%+v; a probe is no request", s)
		}
		r.sleep(time.Minute)
		if n := len(r.api.probes(r.start)); n != 4 {
			r.Errorf("%d probes of a key that is not in doubt", n-4)
		}
	})
}

func TestAKeyThatIsRefusedForItsFirstSecondsServesSoonAfterThem(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.put("new", 2)
		r.api.refuse(invalid, "new")
		time.AfterFunc(5*time.Second, func() { r.api.accept("new") })
		for generation := uint64(1); generation == 1; r.sleep(10 * time.Millisecond) {
			answer, err := r.Generate(r.Context(), prompt)
			if err != nil {
				r.Fatalf("after %v: %v", r.elapsed(), err)
			}
			generation = answer.Generation
		}
		if took := r.elapsed(); took < 5*time.Second || took > 6*time.Second {
			r.Errorf("the new key served after %v, want within a second of the fifth", took)
		}
	})
}

func TestADoubtThatLastsIsAskedAboutEverLessOften(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.put("new", 2)
		r.api.refuse(invalid, "new")
		r.ask(1)
		r.sleep(time.Minute)
		probes := r.api.probes(r.start)
		const eager = 40 // four a second for ten seconds
		if len(probes) < eager || probes[eager-1] != 10*time.Second {
			r.Fatalf("probed at %v, want %d in the first ten seconds", probes, eager)
		}
		var rests []time.Duration
		for i, at := range probes[eager+1:] {
			rests = append(rests, at-probes[eager+i])
		}
		const s = time.Second
		if want := []time.Duration{s / 2, s, 2 * s, 4 * s, 5 * s, 5 * s}; len(rests) < len(want) || !slices.Equal(rests[:len(want)], want) {
			r.Errorf("then it rested for %v, want %v", rests, want)
		}
	})
}

// A front end that hangs must not keep the next probe from being made.
func TestAProbeThatHangsIsGivenUp(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.put("new", 2)
		r.api.refuse(invalid, "new")
		r.api.set(func(a *api) { a.probeLatency = time.Hour })
		r.ask(1)
		r.sleep(time.Second)
		r.api.accept("new")
		r.api.set(func(a *api) { a.probeLatency = 0 })
		r.sleep(5 * time.Second)
		r.ask(2)
	})
}

// A key that served and is refused anew is a new reason to ask, however long the last wait between two questions had become.
func TestADoubtThatComesBackIsNewDoubt(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.put("new", 2)
		r.api.refuse(invalid, "new")
		r.ask(1)
		r.sleep(11*time.Second + 400*time.Millisecond) // the next questions come in five seconds
		r.api.accept("new")
		for r.Status().CurrentRefused {
			r.sleep(10 * time.Millisecond)
		}
		r.ask(2)
		refreshes, probes := len(r.agent.refreshes()), len(r.api.probes(r.start))
		r.api.refuse(invalid, "new")
		r.ask(1)
		if n := len(r.agent.refreshes()); n != refreshes+1 {
			r.Errorf("%d refreshes at once, want 1", n-refreshes)
		}
		r.sleep(250 * time.Millisecond)
		if n := len(r.api.probes(r.start)); n != probes+1 {
			r.Errorf("%d probes after 250 ms, want 1", n-probes)
		}
	})
}

// So is one that is refused after hours without a request, of which only a probe was accepted.
func TestADoubtThatComesBackAfterHoursIsNewDoubt(t *testing.T) {
	story(t, func(r *rig) {
		r.put("only", 1)
		r.api.refuse(invalid, "only")
		r.askRefused()
		r.sleep(40 * time.Second)
		r.api.accept("only")
		r.sleep(2 * time.Hour)
		r.wantReady(true)
		r.api.say("only", func() error {
			r.api.says["only"] = nil // one front end refuses it once
			return invalid
		})
		before := r.elapsed()
		r.ask(1)
		r.wantElapsed(before + 250*time.Millisecond)
	})
}

// What the log leaves out must not be what lasts.
func TestAFailureThatLastsIsLoggedHoweverSoonItCameBack(t *testing.T) {
	story(t, func(r *rig) {
		r.put("only", 1)
		for range 2 {
			r.api.refuse(invalid, "only")
			r.askRefused()
			r.wantReady(false)
			r.wantLogged("no key works", 1)
			r.api.accept("only")
			for !r.Status().Ready {
				r.sleep(50 * time.Millisecond)
			}
			r.ask(1)
			r.wantLogged("ready again", 1)
		}
		r.api.refuse(invalid, "only")
		r.askRefused()
		r.wantReady(false)
		r.wantLogged("no key works", 1)
		r.sleep(time.Minute)
		r.wantReady(false)
		r.wantLogged("no key works", 2)
	})
}

// An answer that was on its way when the key was refused speaks of the past.
func TestALateSuccessDoesNotBringARefusedKeyBack(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.put("new", 2)
		r.api.set(func(a *api) { a.latency = 100 * time.Millisecond })
		done := r.asking(r.Context())
		r.api.set(func(a *api) { a.latency = 0 })
		r.api.refuse(invalid, "new")
		r.ask(1)
		if o := <-done; o.err != nil || o.Generation != 2 {
			r.Errorf("%+v", o)
		}
		r.ask(1)
		r.wantCalls("new new old old")
		if n := len(r.agent.acknowledged()); n != 0 {
			r.Errorf("a refused key was acknowledged")
		}
	})
}

func TestARefusedPredecessorRescuesNobody(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.api.set(func(a *api) { a.latency = 100 * time.Millisecond })
		r.api.refuse(invalid, "old")
		late := r.asking(r.Context())
		r.api.accept("old") // some front ends do
		r.api.set(func(a *api) { a.latency = time.Minute })
		long := r.asking(r.Context())
		r.api.set(func(a *api) { a.latency = 0 })
		r.put("new", 2)
		if s := r.Status(); s.Predecessor != 1 || s.Draining != 0 {
			r.Errorf("%+v", s)
		}
		<-late
		if s := r.Status(); s.Predecessor != 0 || s.Draining != 1 || s.Generation != 2 || s.CurrentRefused {
			r.Errorf("%+v; the refused one has a request left and takes no other", s)
		}
		r.api.refuse(invalid, "new")
		r.askRefused()
		r.wantCalls("old old new new")
		if o := <-long; o.err != nil || o.Generation != 1 {
			r.Errorf("%+v", o)
		}
	})
}

func TestAPredecessorGoesOnceItsSuccessorHasProvenItself(t *testing.T) {
	type step struct {
		successes int
		then      time.Duration
		refusal   bool
		keeps     bool
	}
	for name, steps := range map[string][]step{
		"100 over 60 s":                        {{99, 59 * time.Second, false, true}, {1, time.Second, false, true}, {1, 0, false, false}},
		"many, but too soon":                   {{500, 59 * time.Second, false, true}, {1, time.Second, false, true}, {1, 0, false, false}},
		"long enough, but too few":             {{50, time.Hour, false, true}, {49, time.Hour, false, true}, {1, 0, false, false}},
		"a refusal in between counts as none":  {{99, time.Minute, true, true}, {99, time.Minute, false, true}, {1, 0, false, false}},
		"a refusal makes the time begin again": {{99, time.Minute, true, true}, {100, 59 * time.Second, false, true}, {1, time.Second, false, true}, {1, 0, false, false}},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(r *rig) {
				r.put("old", 1)
				r.put("new", 2)
				for i, step := range steps {
					for n := range step.successes {
						if n%2 == 0 {
							r.ask(2)
						} else if _, err := r.collect(r.Context()); err != nil { // one success, for all its pieces
							r.Error(err)
						}
					}
					if keeps := r.Status().Predecessor == 1; keeps != step.keeps {
						r.Fatalf("step %d, after %v: the predecessor stays: %v, want %v", i+1, r.elapsed(), keeps, step.keeps)
					}
					if step.refusal {
						r.api.refuse(invalid, "new")
						r.ask(1)
						r.api.accept("new")
					}
					r.sleep(step.then)
				}
				r.api.refuse(invalid, "new")
				r.askRefused() // nobody stands in any more
			})
		})
	}
}
