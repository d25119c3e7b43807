package client_test

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/sidecar"
)

// Some front ends know a brand-new key already, and some don't.
func TestAKeyThatFlapsHarmsNobody(t *testing.T) {
	story(t, func(r *rig) {
		r.api.flap("new", 2)
		r.put("old", 1)
		r.put("new", 2)
		on := map[uint64]int{}
		for range 400 {
			answer, err := r.Generate(r.Context(), prompt)
			if err != nil {
				r.Fatalf("after %v: %v", r.elapsed(), err)
			}
			on[answer.Generation]++
			r.sleep(50 * time.Millisecond)
		}
		r.api.accept("new")
		r.sleep(5 * time.Second)
		r.ask(2)
		if on[1] == 0 || on[2] == 0 {
			r.Errorf("both are to be used: %v", on)
		}
		if s := r.Status(); s.Waited != 0 || s.CurrentRefused {
			r.Errorf("%+v", s)
		}
	})
}

// Some front ends may refuse a key for good. Requests are answered all the same, and neither the agent nor the log suffers.
func TestAKeyThatFlapsForMinutesIsAskedAboutAndLoggedSeldom(t *testing.T) {
	const minutes = 5
	story(t, func(r *rig) {
		r.api.flap("only", 10)
		r.put("only", 1)
		for r.elapsed() < minutes*time.Minute {
			r.ask(1)
			r.sleep(50 * time.Millisecond)
		}
		if s := r.Status(); s.Waited < minutes*50 {
			r.Errorf("%+v; most requests that were refused had to wait for the probe", s)
		}
		r.wantAskedSeldom()
		r.wantLogged("Gemini refuses the key", minutes)
		r.wantLogged("level=", minutes+1) // and that it was swapped
	})
}

// What the agent was asked in vain until then must not delay the question that counts.
func TestAKeyThatFlappedAndIsRevokedAsTheNextIsWrittenHarmsNobody(t *testing.T) {
	for offset := range 20 {
		story(t, func(r *rig) {
			r.api.flap("only", 10)
			r.put("only", 1)
			for r.elapsed() < 2*time.Minute+time.Duration(offset)*260*time.Millisecond {
				r.ask(1)
				r.sleep(50 * time.Millisecond)
			}
			r.agent.set(func(a *agent) {
				a.refresh = func(context.Context) (sidecar.Refreshed, error) {
					go r.file.put(r, "next", 2)
					return outcomePublished, nil
				}
			})
			r.api.refuse(invalid, "only")
			r.ask(2)
		})
	}
}

// A list of models that takes a key which no model takes must not make the client ready ever anew.
func TestAProbeThatRequestsRefuteIsMadeEverLessOftenAndLoggedSeldom(t *testing.T) {
	const minutes = 5
	story(t, func(r *rig) {
		r.put("only", 1)
		r.api.refuse(invalid, "only")
		r.api.set(func(a *api) { a.lenient = true })
		var turns []time.Duration // when it was ready, and wasn't, by turns
		for ready := true; r.elapsed() < minutes*time.Minute; r.sleep(50 * time.Millisecond) {
			go r.Generate(r.Context(), prompt)
			synctest.Wait()
			if now := r.Status().Ready; now != ready {
				ready, turns = now, append(turns, r.elapsed())
			}
		}
		r.sleep(2 * time.Second)
		for i := 3; i < len(turns); i++ {
			if apart := turns[i] - turns[i-2]; turns[i-2] > time.Minute && apart < 5*time.Second {
				r.Errorf("it turned at %v and again %v later", turns[i-2], apart)
			}
		}
		failed, over := strings.Count(r.log.String(), "no key works"), strings.Count(r.log.String(), "ready again")
		if failed < minutes-1 || failed > minutes || over < failed-1 || over > failed {
			r.Errorf("logged %d times that requests fail, and %d times that it is over", failed, over)
		}
		if n := strings.Count(r.log.String(), "level="); n > 3*minutes+1 {
			r.Errorf("%d lines in %d minutes:\n%s", n, minutes, r.log)
		}
		r.wantAskedSeldom()
	})
}

// wantAskedSeldom asserts that the agent was asked sixteen times, and once a second, at most.
func (r *rig) wantAskedSeldom() {
	r.Helper()
	if n := len(r.agent.refreshes()); n > 16+int(r.elapsed()/time.Second) {
		r.Errorf("the agent was asked %d times in %v", n, r.elapsed())
	}
}
