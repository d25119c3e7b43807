package turn_test

import (
	"context"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/gate"
	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// rotateTo writes a key that Gemini doesn't know yet, and lets the agent find it.
func (r *rig) rotateTo(key string) {
	r.t.Helper()
	r.store.put("secret/gemini", key)
	r.refresh(r.id(), false, turn.Held)
}

// A fresh key is refused for its first seconds: the old one serves meanwhile, and the new one within a second of the moment
// from which it is accepted.
func TestAFreshKeyIsHeldUntilItIsAccepted(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("old")
		r.start()
		r.log.lines()
		r.rotateTo("new")
		s := r.file()
		if s.Published.Number != 1 || s.Stored.Number != 2 || s.Held.Number != 2 || s.HeldReason == "" || s.Kind != turn.KindHeld ||
			time.Until(s.HeldNext) > time.Second || s.Refused {
			t.Errorf("while it is held: %+v", s)
		}
		r.after(5 * time.Second)
		r.wantFile("old")
		r.gemini.answer("new", accepted)
		r.after(time.Second)
		r.wantFile("new")
		if s := r.file(); s.Published.Number != 2 || !s.Held.IsZero() || !s.HeldSince.IsZero() || !s.HeldNext.IsZero() || s.HeldReason != "" || s.Kind != "" {
			t.Errorf("after the release: %+v", s)
		}
		r.wantLines("the last good value stays in force: Gemini refuses the key: HTTP 400", "published", "in step with the store again")
	})
}

// Gemini is asked at most four times a second for ten seconds, and then ever less.
func TestAHeldKeyIsProbedOftenAtFirst(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("old")
		r.start()
		r.gemini.asked()
		r.rotateTo("new")
		r.after(10 * time.Second)
		probes := r.gemini.asked()
		if n := len(probes); n < 38 || n > 42 {
			t.Errorf("%d probes in the first ten seconds, want about 40", n)
		}
		for i := 4; i < len(probes); i++ {
			if within := probes[i].at.Sub(probes[i-4].at); within < time.Second {
				t.Errorf("five probes within %v", within)
			}
		}
		r.after(10 * time.Minute)
		probes = r.gemini.asked()
		if n := len(probes); n < 40 || n > 50 {
			t.Errorf("%d probes in the ten minutes after, want one each 15 s", n)
		}
		r.gemini.answer("new", accepted)
		r.after(15 * time.Second)
		r.wantFile("new")
	})
}

// Another value is fresh as well, however long the one before it has been backed off from.
func TestTheNextHeldKeyIsProbedOftenAgain(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("old")
		r.start()
		r.rotateTo("new")
		r.after(5 * time.Minute)
		r.rotateTo("newer")
		r.gemini.answer("newer", accepted)
		r.after(time.Second)
		r.wantFile("newer")
	})
}

// Neither polls nor those who ask for a refresh make Gemini be asked more often.
func TestRefreshesDoNotHurryAHeldKey(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.config.Poll = time.Second
		r.put("old")
		r.start()
		r.rotateTo("new")
		r.gemini.asked()
		for range 100 {
			r.refresh(r.id(), false, turn.Held)
			r.after(100 * time.Millisecond)
		}
		if n := len(r.gemini.asked()); n > 44 {
			t.Errorf("%d probes in ten seconds of refreshes", n)
		}
	})
}

// Nor do those who say that the key in force is refused, while the store can't be asked: one of them is heard at once.
func TestClaimsInAnOutageDoNotHurryAHeldKey(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("old")
		r.start()
		r.rotateTo("new")
		r.after(time.Minute)
		r.store.fail("", down(source.Unavailable, "gone"))
		r.after(2 * poll)
		for what, answer := range map[string]gate.Answer{"which is wrong": accepted, "which nobody can check": silent} {
			r.gemini.answer("old", answer)
			r.after(time.Second)
			r.gemini.asked()
			r.refresh(r.id(), true, turn.Held)
			r.after(0)
			if len(r.gemini.asked()) == 0 {
				t.Errorf("%s: the first claim wasn't heard at once", what)
			}
			for range 10000 {
				r.refresh(r.id(), true, turn.Held)
				r.after(time.Millisecond)
			}
			if n := len(r.gemini.asked()); n > 42 {
				t.Errorf("%s: %d probes in ten seconds of claims", what, n)
			}
		}
		r.gemini.answer("old", refused)
		r.gemini.answer("new", accepted)
		r.refresh(r.id(), true, turn.Held)
		r.after(250 * time.Millisecond)
		r.wantFile("new")
	})
}

// A key that some front ends know costs more calls a try, so the tries come less often.
func TestAFlappingKeyIsNoStorm(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("old")
		r.start()
		r.log.lines()
		flaps := flapping{r.gemini}
		r.config.Gate = gate.New(flaps, "key")
		r.stop()
		r.start()
		r.rotateTo("new")
		r.gemini.asked()
		r.log.lines()
		r.after(9 * time.Second)
		if n := len(r.gemini.asked()); n > 40 {
			t.Errorf("%d probes in nine seconds", n)
		}
		r.after(10 * time.Minute)
		r.wantFile("old")
		if lines := r.log.lines(); len(lines) > 1 {
			t.Errorf("flapping is said again and again: %q", lines)
		}
	})
}

// flapping accepts "new" at the first probe of a try only, and in every other second.
type flapping struct{ *fakeGemini }

func (f flapping) Probe(ctx context.Context, key secret.Value) gate.Answer {
	answer := f.fakeGemini.Probe(ctx, key)
	f.mu.Lock()
	defer f.mu.Unlock()
	n := len(f.probes)
	isFirst := n < 2 || f.probes[n-2].at.Before(time.Now()) // those of one try come at once
	if string(key.Reveal()) == "new" && isFirst && time.Now().Second()%2 == 0 {
		return accepted
	}
	return answer
}

func TestGeminiMayAskToBeLeftAlone(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("old")
		r.start()
		r.gemini.answer("new", gate.Answer{Kind: gate.Refused, Reason: "HTTP 400 API_KEY_INVALID", RetryAfter: time.Minute})
		r.rotateTo("new")
		r.gemini.answer("new", accepted)
		r.gemini.asked()
		r.after(30 * time.Second)
		r.refresh(r.id(), false, turn.Held)
		r.after(29 * time.Second)
		if n := len(r.gemini.asked()); n != 0 {
			t.Errorf("%d probes within the minute that Gemini wanted", n)
		}
		r.after(2 * time.Second)
		r.wantFile("new")
	})
}

// A held key needs no store to be let through, nor does one that is malformed cost a call.
func TestAHeldKeyIsReleasedInAnOutage(t *testing.T) {
	for what, outage := range map[string]func(r *rig){
		"that says so": func(r *rig) { r.store.fail("", down(source.Unavailable, "gone")) },
		"that hangs":   func(r *rig) { r.store.slow(time.Hour) },
	} {
		t.Run(what, func(t *testing.T) {
			story(t, func(t *testing.T, r *rig) {
				r.put("old")
				r.start()
				r.rotateTo("new")
				outage(r)
				r.after(2 * poll)
				r.gemini.answer("new", accepted)
				r.after(poll)
				r.wantFile("new")
			})
		})
	}
}

// What the store no longer has is no longer waited for.
func TestAHeldKeyIsForgottenWhenTheStoreTakesItBack(t *testing.T) {
	for what, c := range map[string]struct {
		undo func(r *rig)
		kind source.Kind
	}{
		"a deletion":      {func(r *rig) { r.store.fail("secret/gemini", down(source.NotFound, "deleted")) }, source.NotFound},
		"a rollback":      {func(r *rig) { r.store.put("secret/gemini", "old") }, ""},
		"another value":   {func(r *rig) { r.store.put("secret/gemini", "") }, turn.KindHeld},
		"a lost field":    {func(r *rig) { r.store.putFields("secret/gemini", map[string]string{"x": "y"}) }, source.Invalid},
		"an approved one": {func(r *rig) { r.put("newer") }, ""},
	} {
		t.Run(what, func(t *testing.T) {
			story(t, func(t *testing.T, r *rig) {
				r.put("old")
				r.start()
				r.rotateTo("new")
				r.after(time.Second)
				c.undo(r)
				r.after(2 * poll)
				r.wantTrouble(c.kind)
				r.gemini.asked()
				r.gemini.answer("new", accepted)
				r.after(2 * poll)
				if got, _ := r.sink.get("key"); got == "new" {
					t.Error("a key was published that the store no longer has")
				}
				for _, p := range r.gemini.asked() {
					if p.key == "new" {
						t.Error("it was asked about, too")
						break
					}
				}
			})
		})
	}
}
