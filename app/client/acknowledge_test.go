package client_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/sidecar"
)

// wantAcknowledged asserts of which files, by their inodes, the agent was told.
func (r *rig) wantAcknowledged(want ...uint64) {
	r.Helper()
	var got []uint64
	for _, ack := range r.agent.acknowledged() {
		got = append(got, ack.about)
	}
	if !slices.Equal(got, want) {
		r.Errorf("after %v the files %v were acknowledged, want %v", r.elapsed(), got, want)
	}
}

func TestTheFirstSuccessOfAGenerationIsAcknowledgedOnce(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 7)
		r.sleep(time.Minute)
		r.wantAcknowledged() // to have read it is not to use it
		r.api.set(func(a *api) { a.latency = 300 * time.Millisecond })
		r.ask(1)
		ack := r.agent.acknowledged()
		if want := r.start.Add(time.Minute + 300*time.Millisecond); len(ack) != 1 || ack[0].about != 7 || !ack[0].at.Equal(want) || !ack[0].since.Equal(want) {
			r.Fatalf("%+v; want one of file 7 at %v, at once", ack, want)
		}
		for range 3 {
			r.ask(1)
			r.sleep(time.Minute)
		}
		r.put("two", 8)
		r.ask(2)
		r.wantAcknowledged(7, 8)
		if s := r.Status(); s.Acknowledged != 2 {
			r.Errorf("%+v", s)
		}
	})
}

func TestAStreamIsASuccessFromItsFirstPieceOn(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.set(func(a *api) { a.interval = time.Minute })
		first := true
		for _, err := range r.Stream(r.Context(), prompt) {
			if err != nil {
				r.Error(err)
			}
			if first {
				synctest.Wait()
				r.wantAcknowledged(1)
				r.wantElapsed(0)
			}
			first = false
		}
		r.sleep(time.Minute)
		r.wantAcknowledged(1)
	})
}

func TestARefusedKeyIsNotAcknowledgedAndOneThatStandsInIsNeither(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.put("new", 2)
		r.api.refuse(invalid, "new")
		r.ask(1)
		r.sleep(time.Minute)
		r.wantAcknowledged()
		r.api.accept("new")
		r.sleep(5 * time.Second)
		r.ask(2)
		r.wantAcknowledged(2)
	})
}

// Neither a repair nor an agent that was started anew has a request of its own to wait for.
func TestWhatIsInUseIsAcknowledgedAgainWhenTheFileOrTheAgentIsAnother(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.ask(1)
		first := r.agent.acknowledged()[0].since
		r.sleep(time.Hour)
		r.put("one", 2)
		r.wantAcknowledged(1, 2)
		r.api.refuse(invalid, "one")
		r.askRefused()
		r.api.accept("one")
		r.sleep(time.Minute)
		r.ask(1) // in use again, and so it was before
		r.wantAcknowledged(1, 2)
		r.agent.set(func(a *agent) { a.instance = r.anew })
		r.sleep(time.Second)
		r.wantAcknowledged(1, 2, 2)
		for _, ack := range r.agent.acknowledged() {
			if !ack.since.Equal(first) {
				r.Errorf("in use since %v, want %v", ack.since, first)
			}
		}
		r.sleep(time.Hour)
		r.wantAcknowledged(1, 2, 2)
	})
}

func TestARepairBeforeTheFirstSuccessAcknowledgesNothing(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.put("one", 2)
		r.sleep(time.Minute)
		r.wantAcknowledged()
		r.ask(1)
		r.wantAcknowledged(2)
	})
}

func TestAFileThatTheAgentDoesNotKnowIsLeftToIt(t *testing.T) {
	story(t, func(r *rig) {
		r.agent.answer = sidecar.ErrReplaced
		r.put("one", 1)
		r.ask(1)
		r.sleep(time.Hour)
		r.wantAcknowledged(1)
		r.agent.set(func(a *agent) { a.answer = nil })
		r.put("two", 2) // what it was replaced with
		r.ask(2)
		r.wantAcknowledged(1, 2)
		r.wantLogged("agent", 0)
		if s := r.Status(); s.Acknowledged != 1 {
			r.Errorf("%+v", s)
		}
	})
}

func TestAnAgentThatIsDownIsLoggedOnceAndHearsOfItLater(t *testing.T) {
	story(t, func(r *rig) {
		down := errors.New("no agent answers at agent.sock: start it")
		was := r.agent.instance
		r.agent.answer, r.agent.instance = down, sidecar.Instance{}
		r.agent.refresh = func(context.Context) (sidecar.Refreshed, error) { return sidecar.Refreshed{}, down }
		r.put("one", 1)
		r.ask(1)
		r.wantLogged(down.Error(), 1)
		r.put("two", 2)
		r.api.refuse(invalid, "two")
		r.ask(1)
		r.sleep(10 * time.Second)
		r.api.accept("two")
		r.sleep(10 * time.Second)
		r.ask(2)
		r.sleep(time.Hour)
		r.wantLogged("can't be asked", 1)
		if s := r.Status(); s.Acknowledged != 0 || s.Refreshes == 0 || !s.Ready {
			r.Errorf("%+v", s)
		}
		r.agent.set(func(a *agent) { a.answer, a.instance = nil, was })
		told := len(r.agent.acknowledged())
		r.sleep(time.Second)
		r.wantLogged("answers again", 1)
		r.wantLogged("can't be asked", 1)
		if acks := r.agent.acknowledged(); len(acks) != told+1 || acks[told].about != 2 {
			r.Errorf("%+v", acks[told:])
		}
	})
}

// A socket may hang, be in other hands or be gone; the app lives from the file.
func TestAnAgentThatHangsHoldsNobodyUp(t *testing.T) {
	story(t, func(r *rig) {
		r.agent.refresh = func(ctx context.Context) (sidecar.Refreshed, error) {
			<-ctx.Done()
			return sidecar.Refreshed{}, errors.New("the agent doesn't answer in time")
		}
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		r.askRefused()
		r.wantElapsed(2 * time.Second)
		r.sleep(time.Minute)
		r.wantLogged("doesn't answer in time", 1)
		calls := r.agent.refreshes()
		for i, call := range calls[1:] {
			if between := call.at.Sub(calls[i].at); between < 2*time.Second || between > 7*time.Second {
				r.Errorf("refresh %d came %v after the one before it", i+2, between)
			}
		}
		r.put("two", 2)
		r.ask(2)
	})
}

func TestRunEndsInOrder(t *testing.T) {
	for name, prepare := range map[string]func(r *rig){
		"before the first key":   func(*rig) {},
		"with a key":             func(r *rig) { r.put("one", 1) },
		"after an answer":        func(r *rig) { r.put("one", 1); r.ask(1) },
		"while a key is refused": func(r *rig) { r.put("one", 1); r.api.refuse(invalid, "one"); r.askRefused() }, // it span once
		"while a refresh hangs": func(r *rig) {
			r.agent.refresh = func(ctx context.Context) (sidecar.Refreshed, error) {
				<-ctx.Done()
				return sidecar.Refreshed{}, ctx.Err()
			}
			r.put("one", 1)
			r.put("two", 2)
			r.api.refuse(invalid, "two")
			r.ask(1)
		},
		"while an acknowledgement hangs": func(r *rig) {
			r.agent.hangs = true
			r.put("one", 1)
			r.ask(1)
		},
		"while a new key is in doubt": func(r *rig) {
			r.put("one", 1)
			r.api.refuse(invalid, "one")
			r.askRefused()
			r.api.set(func(a *api) { a.probing = overloaded })
			r.put("two", 2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			story(t, func(r *rig) {
				prepare(r)
				before, logged := r.elapsed(), r.log.String()
				if err := r.stop(); err != nil {
					r.Error(err)
				}
				r.wantElapsed(before)
				told := len(r.agent.refreshes()) + len(r.agent.acknowledged()) + len(r.api.probes(r.start))
				r.sleep(time.Minute)
				if n := len(r.agent.refreshes()) + len(r.agent.acknowledged()) + len(r.api.probes(r.start)); n != told {
					r.Errorf("%d calls after its end", n-told)
				}
				if r.log.String() != logged {
					r.Errorf("an end is nothing to log:\n%s", r.log)
				}
			})
		})
	}
}

// The last requests of a program outlive what brings its keys.
func TestRequestsGoOnAfterRunHasEnded(t *testing.T) {
	story(t, func(r *rig) {
		r.put("old", 1)
		r.put("new", 2)
		r.api.set(func(a *api) { a.latency, a.interval = time.Second, time.Second })
		done := r.asking(r.Context())
		for piece, err := range r.Stream(r.Context(), prompt) {
			if err != nil || piece.Generation != 2 {
				r.Errorf("%+v, %v", piece, err)
			}
			r.stop()
		}
		if o := <-done; o.err != nil || o.Generation != 2 {
			r.Errorf("%+v", o)
		}
		r.ask(2)
		r.api.refuse(invalid, "new")
		r.ask(1) // what is at hand still rescues
		r.api.refuse(invalid, "old")
		r.askRefused()
		synctest.Wait()
		if n := len(r.agent.refreshes()) + len(r.api.probes(r.start)); n != 0 {
			r.Errorf("%d calls after its end", n)
		}
	})
}

// Requests, rotations, refusals and the end at once: nothing may race, hang or fail in a way that has no name.
func TestWhateverHappensAtTheSameTimeHasAName(t *testing.T) {
	story(t, func(r *rig) {
		n := 0
		for _, key := range []string{"a", "b", "c"} {
			r.api.say(key, func() error {
				if n++; n%3 == 0 {
					return invalid
				}
				return nil
			})
		}
		r.api.set(func(a *api) { a.latency, a.interval = 3*time.Millisecond, time.Millisecond })
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		asked := make(chan struct{})
		for i := range 50 {
			go func() {
				defer func() { asked <- struct{}{} }()
				for range 20 {
					var err error
					if i%2 == 0 {
						_, err = r.Generate(ctx, prompt)
					} else {
						for _, err = range r.Stream(ctx, prompt) {
						}
					}
					switch {
					case err == nil, errors.Is(err, client.ErrRefused), errors.Is(err, client.ErrNoKey), err == context.Canceled:
					case gemini.FaultOf(err) == gemini.FaultKey:
						r.Errorf("a refusal before the first piece: %v", err)
					default:
						r.Error(err)
					}
				}
			}()
		}
		for i := range 60 {
			r.file.put(r, string("abc"[i%3]), uint64(i))
			r.sleep(2 * time.Millisecond)
			r.Status()
		}
		r.stop()
		cancel()
		for range 50 {
			<-asked
		}
		if s := r.Status(); s.Generation != 60 || s.Draining != 0 {
			r.Errorf("%+v", s)
		}
	})
}
