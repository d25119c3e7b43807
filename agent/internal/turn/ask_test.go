package turn_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/agent/internal/gate"
	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

func TestARefreshReadsNow(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		old := r.id()
		r.after(time.Second)
		begin := time.Now()
		r.refresh(old, false, turn.Unchanged)
		r.put("two")
		s := r.refresh(old, false, turn.Published)
		r.wantFile("two")
		if s.Identity != r.id() || s.Published.Number != 2 || time.Since(begin) > 0 {
			t.Errorf("after %v: %+v", time.Since(begin), s)
		}
		r.store.took()
		r.refresh(old, true, turn.Published)
		r.refresh(secret.Identity{}, false, turn.Published)
		if n := len(r.store.took()); n != 0 {
			t.Errorf("callers who only hadn't read the file yet cost %d reads", n)
		}
	})
}

func TestARefreshSaysWhatStandsInItsWay(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.start()
		s := r.refresh(secret.Identity{}, false, turn.Unreachable)
		if s.Kind != source.NotFound || s.Rendered {
			t.Errorf("nothing is there: %+v", s)
		}
		r.store.put("secret/gemini", "bad")
		if s := r.refresh(secret.Identity{}, false, turn.Held); s.HeldReason == "" {
			t.Errorf("held: %+v", s)
		}
		r.put("one")
		r.refresh(secret.Identity{}, false, turn.Published)
		r.store.fail("secret/gemini", down(source.Denied, "no"))
		r.refresh(r.id(), false, turn.Unreachable)
		if _, _, err := r.loop.Refresh(t.Context(), "agent.sock", r.id(), true); !errors.Is(err, turn.ErrNoFile) {
			t.Errorf("a file that isn't rendered: %v", err)
		}
	})
}

// A thousand who fail in the same instant share one read, and those who come while it is under way share the next.
func TestConcurrentRefreshesShareARead(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		have := r.id()
		r.store.took()
		r.gemini.asked()
		r.store.slow(10 * time.Millisecond)
		r.gemini.answer("one", refused)
		r.put("two")
		ask := func(refused bool) {
			if outcome, _, err := r.loop.Refresh(t.Context(), "key", have, refused); outcome != turn.Published || err != nil {
				t.Errorf("%q, %v", outcome, err)
			}
		}
		var callers sync.WaitGroup
		for range 1000 {
			callers.Go(func() { ask(true) })
		}
		synctest.Wait()
		for range 100 {
			callers.Go(func() { ask(true) })
		}
		begin := time.Now()
		callers.Wait()
		if took := time.Since(begin); took > 25*time.Millisecond {
			t.Errorf("two reads of 10 ms took %v", took)
		}
		r.after(time.Second)
		if n := len(r.store.took()); n > 2 {
			t.Errorf("%d reads for 1,100 callers, want 2 at most", n)
		}
		probes := r.gemini.asked()
		if len(probes) != 2 {
			t.Errorf("Gemini was asked %v, want once for each key", probes)
		}
	})
}

// Whatever callers do, no second has more than ten reads of theirs; the first of them begin at once, and all are answered.
func TestCallersCannotFloodTheStore(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.many(30)
		r.start()
		r.after(time.Second)
		r.store.took()
		begin := time.Now()
		var callers sync.WaitGroup
		for _, f := range r.loop.Status().Files {
			callers.Go(func() {
				for range 3 {
					if _, _, err := r.loop.Refresh(t.Context(), f.File, f.Identity, true); err != nil {
						t.Error(err)
					}
				}
			})
		}
		synctest.Wait()
		if n := len(r.store.took()); n != 10 || time.Since(begin) > 0 {
			t.Errorf("%d reads at once, want 10", n)
		}
		callers.Wait()
		reads := r.store.took()
		// A poll that is due answers callers too, and isn't theirs.
		if n := len(reads); n > 10*int(time.Since(begin).Seconds()+1)+30 || time.Since(begin) > 10*time.Second {
			t.Errorf("%d reads for 90 calls in %v", n, time.Since(begin))
		}
		for i := 10; i < len(reads) && reads[i].at.Sub(begin) < 10*time.Second; i++ {
			if within := reads[i].at.Sub(reads[i-10].at); within < time.Second {
				t.Errorf("eleven reads within %v", within)
			}
		}
	})
}

// While the store is down a caller hears so at once, also one who has been waiting for it.
func TestARefreshDoesNotWaitForAnOutage(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.store.slow(time.Second)
		r.store.fail("", down(source.Sealed, "sealed"))
		begin := time.Now()
		if s := r.refresh(r.id(), true, turn.Unreachable); s.Kind != source.Sealed || time.Since(begin) != time.Second {
			t.Errorf("after %v: %+v", time.Since(begin), s)
		}
		r.store.took()
		begin = time.Now()
		r.refresh(r.id(), true, turn.Unreachable)
		if time.Since(begin) != 0 || len(r.store.took()) != 0 {
			t.Errorf("a store that is known to be down was waited for: %v", time.Since(begin))
		}
	})
}

func TestACallerMayGiveUp(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.store.slow(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, _, err := r.loop.Refresh(ctx, "key", r.id(), false); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a caller that gave up: %v", err)
		}
	})
}

// The agent learns which version is in use, since when, and how long after the render.
func TestAnAcknowledgementTellsWhatIsInUse(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.after(30 * time.Millisecond)
		first := r.id()
		if err := r.loop.Acknowledge("key", first, time.Now()); err != nil {
			t.Fatal(err)
		}
		want := turn.InUse{Version: r.file().Published, Identity: first, Since: time.Now(), Lag: 30 * time.Millisecond}
		if got := r.file().InUse; got != want {
			t.Errorf("in use: %+v, want %+v", got, want)
		}
		r.put("two")
		r.refresh(first, false, turn.Published)
		if got := r.file().InUse; got != want {
			t.Errorf("before the app has success with the next key, %+v is in use", got)
		}
		for what, c := range map[string]struct {
			file string
			id   secret.Identity
			want error
		}{
			"a file that was replaced": {"key", first, turn.ErrNotInForce},
			"no file at all":           {"nothing", first, turn.ErrNoFile},
		} {
			if err := r.loop.Acknowledge(c.file, c.id, time.Now()); !errors.Is(err, c.want) || r.file().InUse != want {
				t.Errorf("an acknowledgement of %s: %v, %+v", what, err, r.file().InUse)
			}
		}
		if err := r.loop.Acknowledge("key", r.id(), time.Now().Add(time.Hour)); err != nil || r.file().InUse.Since.After(time.Now()) {
			t.Errorf("an acknowledgement from the future: %v, %+v", err, r.file().InUse)
		}
		if err := r.loop.Acknowledge("key", r.id(), time.Now().Add(-time.Hour)); err != nil || r.file().InUse.Lag != 0 {
			t.Errorf("a second acknowledgement of the same changed %+v", r.file().InUse)
		}
	})
}

// A repair gives the same bytes another identity. What is in use stays so since it first was, even if the version moves in
// the same turn.
func TestARepairedFileStaysInUse(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		if err := r.loop.Acknowledge("key", r.id(), time.Now()); err != nil {
			t.Fatal(err)
		}
		since := r.file().InUse.Since
		r.sink.tamper("key", "planted")
		r.put("one")
		r.after(2 * poll)
		if err := r.loop.Acknowledge("key", r.id(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if got := r.file().InUse; got.Since != since || got.Version.Number != 2 || got.Identity != r.id() || got.Lag != 0 {
			t.Errorf("in use: %+v, want version 2 since %v", got, since)
		}
	})
}

// An app may have the file before the agent has noted that it wrote it: after a first write, another key and a repair.
func TestAnAcknowledgementMayComeWhileTheFileIsWritten(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		acknowledged := make(chan error, 1)
		r.sink.written = func(id secret.Identity) {
			go func() { acknowledged <- r.loop.Acknowledge("key", id, time.Now()) }()
			for range 1000 { // lets the app come first
				runtime.Gosched()
			}
		}
		r.put("one")
		r.start()
		for _, change := range []func(){func() {}, func() { r.put("two") }, func() { r.sink.tamper("key", "planted") }} {
			change()
			if err := <-acknowledged; err != nil {
				t.Error(err)
			}
		}
	})
}

// An app that outlives the agent acknowledges again, perhaps before the new agent has read the store.
func TestAnAcknowledgementMayComeBeforeTheFirstRead(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.sink.tamper("key", "one")
		r.put("one")
		r.store.slow(time.Second)
		r.start()
		since := time.Now().Add(-time.Hour)
		if err := r.loop.Acknowledge("key", r.id(), since); err != nil {
			t.Fatal(err)
		}
		r.after(2 * time.Second)
		if got := r.file().InUse; got.Version.Number != 1 || !got.Since.Equal(since) || got.Lag != 0 {
			t.Errorf("in use: %+v", got)
		}
	})
}

// Everything at once, for the race detector: rotations, refreshes, acknowledgements, tampering, outages and those who watch.
func TestEverythingAtOnce(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.config.Poll = 100 * time.Millisecond
		r.put("0")
		r.start()
		var all sync.WaitGroup
		every := func(d time.Duration, n int, do func(i int)) {
			all.Go(func() {
				for i := range n {
					time.Sleep(d)
					do(i)
				}
			})
		}
		keys := []string{"1", "bad", "2", "bad", "3\n"}
		every(70*time.Millisecond, 100, func(i int) {
			r.gemini.answer("bad", []gate.Answer{refused, silent}[i%2])
			r.gemini.answer(keys[i%5], []gate.Answer{accepted, refused}[i%5%2])
			r.store.put("secret/gemini", keys[i%5])
		})
		every(30*time.Millisecond, 200, func(i int) { r.loop.Refresh(t.Context(), "key", r.id(), i%2 == 0) })
		every(50*time.Millisecond, 100, func(int) { r.loop.Acknowledge("key", r.id(), time.Now()) })
		every(110*time.Millisecond, 50, func(int) { r.sink.tamper("key", "planted") })
		every(time.Second, 6, func(i int) {
			r.store.fail("", []*source.Error{down(source.Sealed, "sealed"), nil}[i%2])
		})
		every(10*time.Millisecond, 500, func(int) { r.loop.Status() })
		all.Wait()
		r.store.fail("", nil)
		r.put("last")
		r.after(20 * time.Second)
		r.wantFile("last")
		r.wantTrouble("")
	})
}
