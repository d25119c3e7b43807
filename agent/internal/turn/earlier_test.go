package turn_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// A pod that starts in the middle of a rotation starts: with the newest earlier version that Gemini accepts.
func TestAnEarlierVersionServesWhenNothingElseCan(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("v1")
		r.store.put("secret/gemini", "v2-refused")
		r.put("v3")
		r.gemini.answer("v4-unknown", silent)
		r.store.put("secret/gemini", "v4-unknown")
		r.store.put("secret/gemini", "v5-malformed\n")
		r.store.put("secret/gemini", "v6-fresh")
		r.start()
		r.wantFile("v3")
		r.wantTrouble(turn.KindHeld)
		if s := r.file(); !s.Rendered || s.Published.Number != 3 || s.Stored.Number != 6 || s.Held.Number != 6 || s.Unproven != "" {
			t.Errorf("the agent must say that it is behind: %+v", s)
		}
		r.wantLines("not rendered yet: Gemini refuses the key", "published", "the newest version is refused; an earlier one is in force")
		r.after(4 * poll)
		r.wantFile("v3")
		r.wantLines()
		r.gemini.answer("v6-fresh", accepted)
		r.after(poll)
		r.wantFile("v6-fresh")
		r.wantLines("published", "in step with the store again")
	})
}

// A directory that can't be written is no reason to go further back: the version that was found is written once it can be.
func TestTheSearchForAnEarlierVersionEndsWithWhatCannotBeWritten(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		for i := range 9 {
			r.put(fmt.Sprintf("v%d", i+1))
		}
		r.store.put("secret/gemini", "v10-refused")
		r.sink.fail(errors.New("no space left on device"))
		r.start()
		if reads, probes := len(r.store.took()), len(r.gemini.asked()); reads != 2 || probes != 4 {
			t.Errorf("%d reads and %d probes, want those of two versions", reads, probes)
		}
		r.wantLines("not rendered yet: Gemini refuses the key", "not rendered yet: no space left")
		r.sink.fail(nil)
		r.after(time.Second)
		r.wantFile("v9")
		r.wantLines("published", "the newest version is refused; an earlier one is in force")
		r.wantTrouble(turn.KindHeld)
	})
}

// What was found is no longer written once it is refused as well.
func TestAnEarlierVersionThatIsRefusedMeanwhileIsNotWritten(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("v1")
		r.put("v2")
		r.store.put("secret/gemini", "v3-refused")
		r.sink.fail(errors.New("no space left on device"))
		r.start()
		r.gemini.answer("v1", refused)
		r.gemini.answer("v2", refused)
		r.after(4 * poll)
		r.sink.fail(nil)
		r.after(time.Second)
		r.wantFile("")
		r.wantTrouble(turn.KindHeld)
		r.gemini.answer("v1", accepted)
		r.after(4 * poll)
		r.wantFile("v1")
	})
}

// The search goes back ten versions, asks neither side without pause, and goes on until one is accepted.
func TestTheSearchForAnEarlierVersionIsBounded(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		for i := range 30 {
			r.store.put("secret/gemini", fmt.Sprintf("v%d", i+1))
		}
		r.start()
		oldest := 30
		reads := r.store.took()
		for _, read := range reads {
			if read.number > 0 {
				oldest = min(oldest, read.number)
			}
		}
		if oldest != 20 || len(reads) != 11 {
			t.Errorf("%d reads, down to version %d; want 11, down to 20", len(reads), oldest)
		}
		r.after(time.Minute)
		if n := len(r.store.took()); n > 60 {
			t.Errorf("%d reads in the minute after", n)
		}
		r.gemini.answer("v27", accepted)
		r.after(31 * time.Second)
		r.wantFile("v27")
	})
}

// A store that keeps no earlier versions is not asked for any, and one that fails meanwhile stops the search.
func TestTheSearchForAnEarlierVersionGivesUp(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.config.Source = struct{ source.Source }{r.store}
		r.put("v1")
		r.store.put("secret/gemini", "v2")
		r.start()
		r.after(time.Minute)
		r.wantFile("")
	})
}
