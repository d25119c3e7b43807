package turn_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

func TestWhatSomebodyChangedIsPutBackWithinASecond(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		before := r.id()
		r.log.lines()
		r.sink.tamper("key", "planted")
		r.after(time.Second)
		r.wantFile("one")
		r.wantLines("repaired the file")
		if s := r.file(); s.Identity == before || s.Identity != r.id() || s.Renders != 2 || s.Repairs != 1 {
			t.Errorf("a repair must have an identity of its own, and be counted: %+v", s)
		}
		r.store.fail("", &source.Error{Kind: source.Unavailable, Reason: "gone"})
		r.after(2 * poll)
		r.sink.tamper("key", "planted")
		r.after(time.Second)
		r.wantFile("one")
		if reads := len(r.store.took()); reads > 30 {
			t.Errorf("%d reads of the store", reads)
		}
	})
}

// Whatever it is that somebody changed, the file is another one afterwards, which the app reads and acknowledges.
func TestWhateverChangedTheFileIsAnotherAfterwards(t *testing.T) {
	for found, change := range map[string]func(s *fakeSink){
		"a file that was touched": func(s *fakeSink) { s.tamper("key", "one") },
		"other content":           func(s *fakeSink) { s.plant("key", "two") },
	} {
		t.Run(found, func(t *testing.T) {
			story(t, func(t *testing.T, r *rig) {
				r.put("one")
				r.start()
				if err := r.loop.Acknowledge("key", r.id(), time.Now()); err != nil {
					t.Fatal(err)
				}
				before := r.id()
				change(r.sink)
				changed := r.id()
				r.after(time.Second)
				r.wantFile("one")
				if s := r.file(); s.Identity != r.id() || s.Identity == before || s.Identity == changed || s.Repairs != 1 || s.Renders != 2 {
					t.Errorf("after the repair: %+v", s)
				}
				if err := r.loop.Acknowledge("key", r.id(), time.Now()); err != nil {
					t.Error(err)
				}
				r.refresh(r.id(), false, turn.Unchanged)
				if s := r.file(); s.InUse.Identity != r.id() {
					t.Errorf("in use is %+v", s.InUse)
				}
			})
		})
	}
}

// A key that is refused is asked about, also where its file was touched meanwhile.
func TestAClaimAboutATouchedFileIsHeard(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.sink.tamper("key", "one")
		r.after(time.Second)
		r.gemini.answer("one", refused)
		r.put("two")
		r.refresh(r.id(), true, turn.Published)
		r.wantFile("two")
	})
}

// Somebody who changes the file without pause has it put back once a second, whatever is asked meanwhile.
func TestARepairIsMadeOnceASecondAtMost(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.log.lines()
		for range 100 {
			r.sink.tamper("key", "planted")
			r.loop.Refresh(t.Context(), "key", r.file().Identity, false)
			r.after(100 * time.Millisecond)
		}
		if s := r.file(); s.Repairs < 9 || s.Repairs > 10 {
			t.Errorf("%d repairs in ten seconds", s.Repairs)
		}
		if n := len(r.log.lines()); n > 10 {
			t.Errorf("%d lines in ten seconds", n)
		}
	})
}

// A directory that was replaced is one line, however many files were in it; each of them is put back and counted.
func TestADirectoryThatWasPutBackIsOneLine(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		const files = 100
		r.many(files)
		r.store.fail("secret/7", &source.Error{Kind: source.Denied, Reason: "permission denied"})
		r.start()
		before := r.loop.Status().Files
		r.log.lines()
		r.sink.replaceDirectory(nil)
		r.after(time.Second)
		r.wantLines("repaired the directory")
		for i, s := range r.loop.Status().Files {
			if want := i != 7; s.Rendered != want || (s.Repairs == 1) != want || (s.Identity != before[i].Identity) != want {
				t.Errorf("%s: %+v", s.File, s)
			}
		}
		if n := len(r.sink.files); n != files-1 {
			t.Errorf("%d files in the new directory", n)
		}
		r.after(time.Minute)
		r.wantLines()
	})
}

// What keeps the agent from repairing the directory is one line as well, and the state of every file. A rotation meanwhile
// waits for the end of it.
func TestADirectoryThatCannotBeRepairedIsOneLine(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.many(100)
		r.start()
		r.log.lines()
		r.sink.replaceDirectory(errors.New("the parent is read-only"))
		r.after(10 * time.Second)
		r.wantLines("the directory can't be repaired: the parent is read-only")
		for _, s := range r.loop.Status().Files {
			if s.Kind != turn.KindRender || s.Reason != "the parent is read-only" || !s.Rendered {
				t.Fatalf("%s: %+v", s.File, s)
			}
		}
		r.store.put("secret/3", "another")
		r.after(2 * poll)
		r.wantLines("the last good value stays in force: the parent is read-only")
		r.sink.letMend()
		r.after(time.Second)
		r.wantLines("repaired the directory", "published", "in step with the store again")
		for _, s := range r.loop.Status().Files {
			if s.Kind != "" || s.Repairs != 1 {
				t.Fatalf("%s: %+v", s.File, s)
			}
		}
		if got, _ := r.sink.get("file-3"); got != "another" {
			t.Errorf("file-3 holds %q", got)
		}
	})
}

// A directory that somebody puts back himself needs no repair.
func TestADirectoryThatComesBackIsSaid(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		id := r.id()
		r.log.lines()
		r.sink.obstruct(errors.New("owned by another uid"))
		r.after(5 * time.Second)
		r.wantTrouble(turn.KindRender)
		r.sink.letMend()
		r.after(time.Second)
		r.wantTrouble("")
		r.wantLines("the directory can't be repaired: owned by another uid", "the directory is in order again")
		if s := r.file(); r.id() != id || s.Repairs != 0 {
			t.Errorf("the file was written again: %+v", s)
		}
	})
}

// A failure that gives another reason each time fills neither the log nor the memory.
func TestReasonsThatNeverRepeatAreSaidOnlySoOften(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.log.lines()
		for i := range 200 {
			r.sink.tamper("key", "planted")
			r.sink.fail(fmt.Errorf("failure number %d", i))
			r.after(time.Second)
		}
		if n := len(r.log.lines()); n > 16 {
			t.Errorf("%d lines about one state", n)
		}
		r.sink.fail(nil)
		r.after(time.Second)
		r.wantLines("repaired the file", "in step with the store again")
	})
}

// The gate may take seconds over a new value, and the old one is in force meanwhile.
func TestARepairDoesntWaitForTheGate(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		gate := &slowGate{entered: make(chan struct{}), leave: make(chan struct{})}
		r.stop()
		r.config.Gate = gate
		r.start()
		r.put("two")
		r.after(2 * poll)
		<-gate.entered
		r.sink.tamper("key", "planted")
		r.after(time.Second)
		r.wantFile("one")
		close(gate.leave)
		r.after(time.Second)
		r.wantFile("two")
	})
}

// slowGate lets a value through when it is told to.
type slowGate struct{ entered, leave chan struct{} }

func (g *slowGate) Judge(ctx context.Context, _ turn.Candidate) turn.Verdict {
	close(g.entered)
	select {
	case <-g.leave:
	case <-ctx.Done():
	}
	return turn.Verdict{}
}

func (g *slowGate) Refused(context.Context, string, secret.Value) (refused, known bool) {
	return false, true
}

func TestAFailedRepairIsSaidAndTriedAgain(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.log.lines()
		r.sink.tamper("key", "planted")
		r.sink.fail(errors.New("read-only file system"))
		r.after(10 * time.Second)
		r.wantTrouble(turn.KindRender)
		r.sink.fail(nil)
		r.after(time.Second)
		r.wantFile("one")
		r.wantTrouble("")
		r.wantLines("the last good value stays in force: read-only file system", "repaired the file", "in step with the store again")
	})
}
