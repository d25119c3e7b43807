package turn_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

func down(kind source.Kind, reason string) *source.Error {
	return &source.Error{Kind: kind, Reason: reason}
}

// Whatever the store says or fails to say, the last good key stays in force and one line says why.
func TestTheLastGoodKeySurvivesEverything(t *testing.T) {
	for what, c := range map[string]struct {
		spoil func(r *rig)
		kind  source.Kind
	}{
		"an outage":          {func(r *rig) { r.store.fail("", down(source.Unavailable, "gone")) }, source.Unavailable},
		"a seal":             {func(r *rig) { r.store.fail("", down(source.Sealed, "sealed")) }, source.Sealed},
		"a refused login":    {func(r *rig) { r.store.fail("", down(source.Unauthenticated, "no")) }, source.Unauthenticated},
		"a lost permission":  {func(r *rig) { r.store.fail("secret/gemini", down(source.Denied, "no")) }, source.Denied},
		"a deletion":         {func(r *rig) { r.store.fail("secret/gemini", down(source.NotFound, "deleted")) }, source.NotFound},
		"a missing field":    {func(r *rig) { r.store.putFields("secret/gemini", map[string]string{"other": "x"}) }, source.Invalid},
		"an empty value":     {func(r *rig) { r.put("") }, turn.KindHeld},
		"a newline":          {func(r *rig) { r.put("two\n") }, turn.KindHeld},
		"a key of two words": {func(r *rig) { r.put("no key") }, turn.KindHeld},
		"a refused key":      {func(r *rig) { r.store.put("secret/gemini", "nobody's") }, turn.KindHeld},
	} {
		t.Run(what, func(t *testing.T) {
			story(t, func(t *testing.T, r *rig) {
				r.put("one")
				r.start()
				r.log.lines()
				c.spoil(r)
				r.after(time.Hour)
				r.wantFile("one")
				r.wantTrouble(c.kind)
				if lines := r.log.lines(); len(lines) != 1 {
					t.Errorf("an hour of trouble took %d lines: %q", len(lines), lines)
				}
				r.store.fail("", nil)
				r.store.fail("secret/gemini", nil)
				r.put("three")
				r.after(2 * poll)
				r.wantFile("three")
				r.wantTrouble("")
			})
		})
	}
}

func TestWithoutALastGoodKeyTheAgentWaits(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.start()
		r.wantTrouble(source.NotFound)
		r.after(10 * time.Minute)
		r.wantLines("not rendered yet: there is no secret")
		if n := len(r.store.took()); n > 50 {
			t.Errorf("a secret that isn't there was asked for %d times in ten minutes", n)
		}
		r.put("one")
		r.after(2 * poll)
		r.wantFile("one")
		r.wantLines("in step with the store again", "published")
	})
}

// In an outage one probe stands for a thousand paths. When the store is back, all re-read at once, through a few workers.
func TestOneProbeStandsForAll(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		const files = 1000
		r.many(files)
		r.store.slow(time.Millisecond)
		r.start()
		r.after(time.Minute)
		r.store.fail("", down(source.Unavailable, "no connection"))
		r.after(2 * time.Second)
		if n := len(r.store.took()); n < 4*files {
			t.Fatalf("only %d reads before the outage", n)
		}
		r.log.lines()
		r.after(2 * time.Minute)
		reads := r.store.took()
		if n := len(reads); n < 60 || n > 240 {
			t.Errorf("%d probes in two minutes, want one each 1 to 1.8 s", n)
		}
		gaps := map[time.Duration]bool{}
		for i, read := range reads {
			if read.path != reads[0].path {
				t.Fatalf("%s was probed as well as %s", read.path, reads[0].path)
			}
			if i > 0 {
				gap := read.at.Sub(reads[i-1].at)
				gaps[gap.Round(50*time.Millisecond)] = true
				if gap < time.Second {
					t.Errorf("two probes within %v", gap)
				}
			}
		}
		if len(gaps) < 10 {
			t.Errorf("the probes come at %d different intervals: a fleet must spread", len(gaps))
		}
		r.wantLines()
		if s := r.loop.Status(); s.Outage == nil || s.Failures[source.Unavailable] < 60 || time.Until(s.Files[9].Next) > 2*time.Second {
			t.Errorf("the status in an outage: %v, %v, next %v", s.Outage, s.Failures, s.Files[9].Next)
		}

		r.store.fail("", nil)
		r.after(3 * time.Second)
		if n := len(r.store.took()); n != files {
			t.Errorf("%d reads within 3 s after the outage, want one a path", n)
		}
		if r.store.most > 16 {
			t.Errorf("%d reads ran at once", r.store.most)
		}
		r.wantLines("the store answers again")
	})
}

// Reads that are under way or queue when the store begins to fail don't each find that out for themselves.
func TestAnOutageStopsTheQueueBeforeIt(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.many(1000)
		r.store.slow(10 * time.Second) // as a store that hangs, up to the client's timeout
		r.store.fail("", down(source.Unavailable, "no answer"))
		r.start()
		r.after(11 * time.Second)
		if n := len(r.store.took()); n > 17 { // the readers, and the first probe
			t.Errorf("%d reads went into a store that hangs", n)
		}
		r.wantLines("the store fails")
	})
}

// An attempt that took its time was a wait as well: who comes back after a silence is found at once.
func TestAProbeFollowsASilenceAtOnce(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.store.slow(10 * time.Second)
		r.store.fail("", down(source.Unavailable, "no answer"))
		r.start()
		r.after(45 * time.Second)
		reads := r.store.took()
		if len(reads) != 5 {
			t.Fatalf("%d reads in 45 s of silences of 10 s, want 5", len(reads))
		}
		for i, read := range reads[1:] {
			if gap := read.at.Sub(reads[i].at); gap != 10*time.Second {
				t.Errorf("%v between two reads that take 10 s", gap)
			}
		}
	})
}

func TestTheStoreMayAskToBeLeftAlone(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.store.fail("", &source.Error{Kind: source.RateLimited, Reason: "too many", RetryAfter: time.Minute})
		r.start()
		r.after(5*time.Minute + time.Second)
		if n := len(r.store.took()); n != 6 {
			t.Errorf("%d reads in five minutes of a store that wants one a minute", n)
		}
		r.store.fail("", nil)
		r.after(time.Minute)
		r.wantFile("one")

		r.store.fail("secret/gemini", &source.Error{Kind: source.Denied, Reason: "no", RetryAfter: 10 * time.Minute})
		r.after(time.Minute)
		r.store.took()
		r.after(9 * time.Minute)
		if n := len(r.store.took()); n != 0 {
			t.Errorf("%d reads of a path that wanted to be left alone", n)
		}
	})
}

// Whoever asks in an outage waits for a better key: the next probe comes as soon as it may, and no sooner.
func TestARefreshInAnOutageHastensTheProbe(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.store.fail("", down(source.Unavailable, "gone"))
		r.after(2 * poll)
		r.store.took()
		for range 100 {
			if outcome, _, err := r.loop.Refresh(t.Context(), "key", r.id(), false); outcome != turn.Unreachable || err != nil {
				t.Fatalf("%v, %v", outcome, err)
			}
			r.after(100 * time.Millisecond)
		}
		if n := len(r.store.took()); n < 9 || n > 11 {
			t.Errorf("%d probes in ten seconds, want one a second", n)
		}
		r.store.fail("", nil)
		r.put("two")
		if _, _, err := r.loop.Refresh(t.Context(), "key", r.id(), false); err != nil {
			t.Fatal(err)
		}
		r.after(time.Second)
		r.wantFile("two")
	})
}

func TestOneDeniedPathBacksOffAlone(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.many(3)
		r.store.fail("secret/1", down(source.Denied, "permission denied"))
		r.start()
		r.store.put("secret/0", "another")
		r.after(2 * poll)
		if got, _ := r.sink.get("file-0"); got != "another" {
			t.Error("a neighbour of the denied path stood still")
		}
		if s := r.loop.Status(); s.Outage != nil || s.Files[1].Kind != source.Denied || s.Files[2].Kind != "" {
			t.Errorf("one denied path: %v %+v", s.Outage, s.Files)
		}
	})
}

// Each change of the reason is said, and nothing else is: not each attempt, and not each turn of two that take turns.
func TestAnOutageIsSaidOncePerChange(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.log.lines()
		for _, e := range []*source.Error{
			down(source.Unavailable, "no connection to 10.0.0.1"), down(source.Unavailable, "no connection to 10.0.0.2"),
			down(source.Unavailable, "no connection to 10.0.0.1"), down(source.Unavailable, "no connection to 10.0.0.2"),
			down(source.Sealed, "Vault is sealed"), down(source.Unavailable, "no connection to 10.0.0.1"),
		} {
			r.store.fail("", e)
			r.after(time.Minute)
		}
		r.wantLines("the store fails; what was rendered stays in force: no connection to 10.0.0.1",
			"the store fails; what was rendered stays in force: no connection to 10.0.0.2",
			"the store fails; what was rendered stays in force: Vault is sealed",
			"the store fails; what was rendered stays in force: no connection to 10.0.0.1")
	})
}

// One of two nodes may be sealed: the outage of each read that it answers is over at the next one, and is said once a minute.
func TestAStoreThatAnswersNowAndThenIsNoStorm(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.many(10)
		half := &halfSealed{fakeStore: r.store}
		r.config.Source = half
		r.start()
		r.log.lines()
		half.seal(true)
		r.after(10 * time.Minute)
		if n := len(r.log.lines()); n < 10 || n > 22 {
			t.Errorf("%d lines in ten minutes of a store that is half sealed, want two a minute at most", n)
		}
		for r.loop.Status().Outage != nil {
			r.after(100 * time.Millisecond)
		}
		r.log.lines()
		r.store.fail("", down(source.Sealed, "Vault is sealed"))
		r.after(time.Minute + poll)
		r.wantLines("the store fails; what was rendered stays in force: Vault is sealed")
		r.store.fail("", nil)
		half.seal(false)
		r.after(time.Minute + 2*time.Second)
		r.wantLines("the store answers again")
		r.store.fail("", down(source.Sealed, "Vault is sealed"))
		r.after(2 * poll)
		r.store.fail("", nil)
		r.after(2 * time.Second)
		r.wantLines("the store fails; what was rendered stays in force: Vault is sealed", "the store answers again")
	})
}

// halfSealed answers every other read only, while it is sealed.
type halfSealed struct {
	*fakeStore
	count  int
	sealed bool
}

func (s *halfSealed) seal(sealed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sealed = sealed
}

func (s *halfSealed) Fetch(ctx context.Context, path string) (*source.Record, error) {
	s.mu.Lock()
	s.count++
	sealed := s.sealed && s.count%2 == 0
	s.mu.Unlock()
	if sealed {
		return nil, down(source.Sealed, "Vault is sealed")
	}
	return s.fakeStore.Fetch(ctx, path)
}

// An outage that gives another reason at each attempt fills neither the log nor the memory.
func TestAnOutageWhoseReasonsNeverRepeatIsSaidOnlySoOften(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.log.lines()
		for i := range 200 {
			r.store.fail("", down(source.Unavailable, fmt.Sprintf("failure number %d", i)))
			r.after(2 * time.Second)
		}
		if n := len(r.log.lines()); n > 17 {
			t.Errorf("%d lines about one outage", n)
		}
	})
}

// A renewal that fails while reads work is said once; one that fails with the rest of the store is not said beside it.
func TestAFailingRenewalIsNoStorm(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		refusal := error(down(source.Unauthenticated, "the role is gone"))
		r.store.keep = func() (time.Duration, error) { return time.Hour, refusal }
		r.start()
		r.log.lines()
		r.after(time.Hour)
		r.wantLines("the access to the store can't be renewed: the role is gone")
		if n := len(r.store.keeps); n < 200 || n > 800 {
			t.Errorf("%d attempts in an hour", n)
		}
		r.store.mu.Lock()
		refusal = nil
		r.store.mu.Unlock()
		r.after(time.Minute)
		r.wantLines("the access to the store is renewed")

		r.store.mu.Lock()
		refusal = &source.Error{Kind: source.RateLimited, Reason: "too many", RetryAfter: 10 * time.Minute}
		r.store.keeps = nil
		r.store.mu.Unlock()
		r.after(2 * time.Hour)
		if n := len(r.store.keeps); n > 11 {
			t.Errorf("%d attempts at a store that wanted one in ten minutes", n)
		}
	})
	story(t, func(t *testing.T, r *rig) {
		gone := down(source.Unavailable, "no connection")
		r.store.keep = func() (time.Duration, error) { return 0, gone }
		r.store.fail("", gone)
		r.start()
		r.after(time.Hour)
		r.wantLines("the store fails")
	})
}

// The agent may be told to stop at any moment of an outage, and says no nonsense then.
func TestStoppingInAnOutage(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.many(20)
		r.store.fail("", down(source.Sealed, "sealed"))
		r.start()
		r.after(time.Minute)
		r.log.lines()
		r.stop()
		r.wantLines()
	})
}

func TestAStrangeErrorIsNotTakenForAnOutage(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.config.Source = strange{}
		r.start()
		r.after(time.Minute)
		if s := r.loop.Status(); s.Outage != nil || s.Files[0].Reason != "boo" {
			t.Errorf("a strange error: %+v", s)
		}
	})
}

type strange struct{ source.Source }

var errBoo = errors.New("boo")

func (strange) Fetch(context.Context, string) (*source.Record, error) { return nil, errBoo }
