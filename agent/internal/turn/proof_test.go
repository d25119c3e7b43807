package turn_test

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// Gemini's silence says nothing of a key: it is published, and the lack of proof is said until an app has success with it.
func TestSilenceHoldsNothingBack(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.gemini.answer("one", silent)
		r.store.put("secret/gemini", "one")
		r.start()
		r.wantFile("one")
		if s := r.file(); s.Unproven == "" || s.Kind != "" {
			t.Errorf("published without proof: %+v", s)
		}
		r.wantLines("published without proof: Gemini can't be asked")
		if err := r.loop.Acknowledge("key", r.id(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if s := r.file(); s.Unproven != "" {
			t.Error("a key that an app has success with counts as unproven")
		}
	})
}

// What was refused once is never published on the strength of silence, not even under another version much later.
func TestWhatWasRefusedOnceNeedsProof(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("old")
		r.start()
		r.rotateTo("bad")
		r.rotateTo("worse")
		r.put("good")
		r.after(2 * poll)
		r.wantFile("good")
		r.gemini.answer("bad", silent)
		r.gemini.answer("old", silent)
		r.store.put("secret/gemini", "bad")
		r.after(2 * poll)
		r.wantFile("good")
		r.store.put("secret/gemini", "old") // refused by nobody so far
		r.after(2 * poll)
		r.wantFile("old")
		r.gemini.answer("bad", accepted)
		r.store.put("secret/gemini", "bad")
		r.after(2 * poll)
		r.wantFile("bad")
	})
}

// Also when the value in force was found to be refused, and comes back.
func TestTheRevokedKeyDoesNotComeBackUnproven(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("old")
		r.start()
		r.gemini.answer("old", refused)
		r.put("new")
		r.refresh(r.id(), true, turn.Published)
		r.gemini.answer("old", silent)
		r.store.put("secret/gemini", "old")
		r.after(2 * poll)
		r.wantFile("new")
		r.wantTrouble(turn.KindHeld)
	})
}

// A rotation that is judged while the value in force is known to be refused needs one proof, not three.
func TestOneProofIsEnoughWhenNothingCanBeLost(t *testing.T) {
	for claimed, want := range map[bool]int{true: 1, false: 3} {
		story(t, func(t *testing.T, r *rig) {
			r.put("old")
			r.start()
			r.gemini.answer("old", refused)
			r.gemini.asked()
			r.put("new")
			r.refresh(r.id(), claimed, turn.Published)
			r.wantFile("new")
			asked := map[string]int{}
			for _, p := range r.gemini.asked() {
				asked[p.key]++
			}
			if asked["new"] != want || claimed && asked["old"] != 1 || !claimed && asked["old"] != 0 {
				t.Errorf("with a claim: %t, Gemini was asked %v", claimed, asked)
			}
		})
	}
}

// The key in force is revoked while a held one is being backed off from: the claim makes it due at once.
func TestAClaimHastensAHeldKey(t *testing.T) {
	for _, outage := range []bool{false, true} {
		story(t, func(t *testing.T, r *rig) {
			r.put("old")
			r.start()
			r.rotateTo("new")
			r.after(5 * time.Minute)
			if outage {
				r.store.fail("", down(source.Sealed, "sealed"))
				r.after(2 * poll)
			}
			r.gemini.answer("old", refused)
			r.gemini.answer("new", accepted)
			have, begin, done := r.id(), time.Now(), false
			for time.Since(begin) < 2*time.Second && !done {
				outcome, _, err := r.loop.Refresh(t.Context(), "key", have, true)
				done = err == nil && outcome == turn.Published
				r.after(10 * time.Millisecond)
			}
			if took := time.Since(begin); !done || took > 50*time.Millisecond {
				t.Errorf("in an outage: %t: published %t after %v", outage, done, took)
			}
		})
	}
}

// A claim costs one call. One that is wrong changes nothing; one that is right is remembered, checked again from time to
// time, and taken back when the key is accepted again.
func TestAClaimIsChecked(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.gemini.asked()
		r.log.lines()
		r.refresh(r.id(), true, turn.Unchanged)
		if n := len(r.gemini.asked()); n != 1 || r.file().Refused {
			t.Errorf("a wrong claim cost %d calls", n)
		}
		r.gemini.answer("one", refused)
		r.refresh(r.id(), false, turn.Unchanged)
		if n := len(r.gemini.asked()); n != 0 {
			t.Errorf("no claim cost %d calls", n)
		}
		for range 10 {
			r.refresh(r.id(), true, turn.Unchanged)
		}
		if n := len(r.gemini.asked()); n != 1 || !r.file().Refused {
			t.Errorf("ten claims that are right cost %d calls", n)
		}
		r.gemini.answer("one", silent)
		r.after(2 * poll)
		if !r.file().Refused {
			t.Error("silence took a refusal back")
		}
		r.gemini.answer("one", accepted)
		r.after(2 * poll)
		if r.file().Refused {
			t.Error("the key is accepted again and still counts as refused")
		}
		r.wantLines("the value in force is refused", "the value in force is accepted again")
		if n := len(r.gemini.asked()); n > 4 {
			t.Errorf("%d calls in a minute for a refused key", n)
		}
	})
}
