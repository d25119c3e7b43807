package turn_test

import (
	"errors"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

func TestAKeyReachesItsFileAndTheNextOneWithinAPoll(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.wantFile("one")
		r.wantLines("published")
		s := r.file()
		if s.Published.Number != 1 || s.Stored.Number != 1 || !s.Rendered || s.Renders != 1 || s.Identity != r.id() || s.Unproven != "" {
			t.Errorf("after the first render: %+v", s)
		}
		if next := time.Until(s.Next); next < poll*9/10 || next > poll*11/10 {
			t.Errorf("the next read comes in %v, want %v within 10 %%", next, poll)
		}
		r.put("two")
		r.after(poll * 11 / 10)
		r.wantFile("two")
		r.wantLines("published")
		if s := r.file(); s.Published.Number != 2 || s.Renders != 2 || time.Since(s.Changed) > poll {
			t.Errorf("after the rotation: %+v", s)
		}
	})
}

func TestAnUnchangedKeyIsLeftAlone(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		id := r.id()
		r.gemini.asked()
		r.log.lines()
		r.after(time.Hour)
		if n := len(r.store.took()); n < 200 || n > 270 {
			t.Errorf("%d reads in an hour of polls every %v", n, poll)
		}
		if r.id() != id || r.sink.renders != 1 || len(r.gemini.asked()) != 0 {
			t.Error("an unchanged key was rendered or proven again")
		}
		r.wantLines()
	})
}

// An agent that starts finds the file of the one before: nothing is written, nobody is told anything else.
func TestARestartTakesTheFileOver(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.sink.tamper("key", "one")
		id := r.id()
		r.store.fail("", &source.Error{Kind: source.Sealed, Reason: "Vault is sealed: unseal it"})
		r.start()
		if s := r.file(); !s.Rendered || s.Identity != id || !s.Published.IsZero() {
			t.Errorf("before the store was read: %+v", s)
		}
		r.store.fail("", nil)
		r.put("one")
		r.after(2 * time.Second)
		if s := r.file(); r.id() != id || s.Renders != 0 || s.Published.Number != 1 || !s.Changed.IsZero() {
			t.Errorf("equal bytes were rendered again: %+v", s)
		}
		r.wantLines("took over the file", "the store fails", "the store answers again")
	})
}

func TestAFileThatIsNotFitIsReplaced(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.sink.tamper("key", "")
		r.put("one")
		r.start()
		r.wantFile("one")
		r.wantLines("will replace the file that stands there: it is not fit", "published")
	})
}

func TestEqualBytesUnderANewVersionWriteNothingAndStayInUse(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		id := r.id()
		if err := r.loop.Acknowledge("key", id, time.Now()); err != nil {
			t.Fatal(err)
		}
		since := r.file().InUse.Since
		r.put("one")
		r.after(2 * poll)
		s := r.file()
		if r.id() != id || s.Renders != 1 || s.Published.Number != 2 {
			t.Errorf("equal bytes: %+v", s)
		}
		if s.InUse.Version.Number != 2 || s.InUse.Since != since || s.InUse.Identity != id {
			t.Errorf("what is in use moved to %+v", s.InUse)
		}
	})
}

// A standby that lags behind answers with an older version, whatever its number. A count that was reset is news.
func TestVersionsAreOrderedByTheirCreation(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.put("two")
		r.after(time.Second)
		r.put("three")
		r.start()
		r.wantFile("three")
		r.store.lag("secret/gemini")
		r.after(4 * poll)
		r.wantFile("three")
		if s := r.file(); s.Stored.Number != 3 || s.Kind != "" {
			t.Errorf("a lagging standby changed the state: %+v", s)
		}
		r.store.catchUp("secret/gemini")
		r.gemini.answer("again", accepted)
		r.store.putVersion("secret/gemini", 1, time.Now(), map[string]string{"key": "again"})
		r.after(2 * poll)
		r.wantFile("again")
	})
}

// The answer of a standby that lags behind shows that the store can be read again. It says nothing of what is wrong with the
// newest version.
func TestALaggingAnswerEndsAFailure(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.after(time.Second)
		r.put("two")
		r.start()
		denied := &source.Error{Kind: source.Denied, Reason: "permission denied"}
		r.store.fail("secret/gemini", denied)
		r.after(2 * poll)
		r.log.lines()
		r.store.fail("secret/gemini", nil)
		r.store.lag("secret/gemini")
		r.after(2 * poll)
		r.wantTrouble("")
		r.wantLines("in step with the store again")

		r.store.catchUp("secret/gemini")
		r.after(time.Second)
		r.store.putFields("secret/gemini", map[string]string{"other": "x"})
		r.after(2 * poll)
		r.store.lag("secret/gemini")
		r.after(2 * poll)
		r.wantTrouble(source.Invalid)
		r.store.fail("secret/gemini", denied)
		r.after(2 * poll)
		r.wantTrouble(source.Denied)
		r.store.fail("secret/gemini", nil)
		r.after(2 * poll)
		r.wantTrouble(source.Invalid)
		r.wantLines("the last good value stays in force: there is no field", "the last good value stays in force: permission denied")
	})
}

// A store whose clock was set back dates a new version before the one in force, and one that was restored has an older one. It
// isn't taken for a standby that lags behind for ever, nor at all once the key in force is refused.
func TestAStoreThatWasSetBackIsFollowed(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.log.lines()
		r.gemini.answer("two", accepted)
		r.store.putVersion("secret/gemini", 2, time.Now().Add(-time.Hour), map[string]string{"key": "two"})
		r.after(2 * poll)
		r.wantFile("one")
		r.wantLines()
		r.after(time.Minute + poll)
		r.wantFile("two")
		r.wantLines("the store went back to a version that was made earlier", "published")

		id := r.id()
		r.gemini.answer("two", refused)
		r.gemini.answer("three", accepted)
		r.store.putVersion("secret/gemini", 3, time.Now().Add(-2*time.Hour), map[string]string{"key": "three"})
		r.refresh(id, true, turn.Published)
		r.wantFile("three")
	})
}

func TestFieldsOfOnePathCostOneRead(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		ref := func(field string) secret.Ref { return secret.Ref{Path: "secret/db", Field: field} }
		r.config.Secrets = []turn.Secret{{File: "user", Ref: ref("user")}, {File: "password", Ref: ref("password")}, {File: "none", Ref: ref("none")}}
		r.store.putFields("secret/db", map[string]string{"user": "ada", "password": "ünï cödé"})
		r.start()
		if n := len(r.store.took()); n != 1 {
			t.Errorf("%d reads, want 1", n)
		}
		for file, want := range map[string]string{"user": "ada", "password": "ünï cödé", "none": ""} {
			if got, _ := r.sink.get(file); got != want {
				t.Errorf("%s holds %q, want %q", file, got, want)
			}
		}
		files := r.loop.Status().Files
		if !files[0].Rendered || !files[1].Rendered || files[2].Rendered || files[2].Kind != source.Invalid {
			t.Errorf("a field that is missing must harm nobody else: %+v", files)
		}
		if len(r.gemini.asked()) != 0 {
			t.Error("a secret that nobody named for proof was sent to Gemini")
		}
	})
}

// What the store says of a lease or a ttl goes before the poll interval; the file is still looked after in between.
func TestALeaseSetsTheNextRead(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.store.refresh = time.Hour
		r.put("one")
		r.start()
		r.store.took()
		r.sink.tamper("key", "planted")
		r.after(time.Second)
		r.wantFile("one")
		r.after(20 * time.Minute)
		if n := len(r.store.took()); n != 0 {
			t.Errorf("%d reads within a lease of an hour", n)
		}
		r.after(50 * time.Minute)
		if n := len(r.store.took()); n != 1 {
			t.Errorf("%d reads when the lease was over, want 1", n)
		}
	})
}

func TestAFullDirectoryIsSaidAndHeals(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		r.put("one")
		r.start()
		r.log.lines()
		r.sink.fail(errors.New("no space left on device"))
		r.store.refresh = time.Hour // from the next read on nothing but time mends it
		r.put("two")
		r.after(4 * poll)
		r.wantFile("one")
		r.wantTrouble(turn.KindRender)
		if s := r.file(); s.Published.Number != 1 || s.Stored.Number != 2 {
			t.Errorf("what couldn't be written counts as published: %+v", s)
		}
		r.gemini.asked()
		r.store.took()
		r.sink.fail(nil)
		r.after(time.Second)
		r.wantFile("two")
		r.wantTrouble("")
		r.wantLines("the last good value stays in force: no space", "published", "in step with the store again")
		if probes, reads := len(r.gemini.asked()), len(r.store.took()); probes+reads > 0 {
			t.Errorf("%d probes and %d reads, for a value that was read and proven before", probes, reads)
		}
	})
}

// What was to be written counts no more once Gemini refuses it, or the store has it no more: the old one stays when there is
// room again, and the trouble is another.
func TestWhatCannotBeWrittenIsForgottenOnceItIsBad(t *testing.T) {
	for what, c := range map[string]struct {
		spoil func(r *rig)
		kind  source.Kind
		line  string
	}{
		"a refusal":    {func(r *rig) { r.gemini.answer("two", refused) }, turn.KindHeld, "Gemini refuses the key"},
		"a deletion":   {func(r *rig) { r.store.fail("secret/gemini", down(source.NotFound, "deleted")) }, source.NotFound, "deleted"},
		"a lost field": {func(r *rig) { r.store.putFields("secret/gemini", map[string]string{"x": "y"}) }, source.Invalid, "there is no field"},
	} {
		t.Run(what, func(t *testing.T) {
			story(t, func(t *testing.T, r *rig) {
				r.put("one")
				r.start()
				r.sink.fail(errors.New("no space left on device"))
				r.put("two")
				r.after(2 * poll)
				r.wantTrouble(turn.KindRender)
				r.log.lines()
				c.spoil(r)
				r.after(2 * poll)
				r.sink.fail(nil)
				r.after(2 * poll)
				r.wantFile("one")
				r.wantTrouble(c.kind)
				r.wantLines("the last good value stays in force: " + c.line)
				r.store.fail("secret/gemini", nil)
				r.put("three")
				r.after(2 * poll)
				r.wantFile("three")
				r.wantTrouble("")
			})
		})
	}
}

func TestAThousandFilesAreRenderedThroughAFewReaders(t *testing.T) {
	story(t, func(t *testing.T, r *rig) {
		const files = 1000
		r.many(files)
		r.store.slow(time.Millisecond)
		r.store.fail("secret/7", &source.Error{Kind: source.Denied, Reason: "permission denied"})
		r.start()
		r.after(70 * time.Millisecond)
		if n := len(r.sink.files); n != files-1 {
			t.Errorf("%d files after 70 ms of a store that takes 1 ms, want all but the denied one", n)
		}
		if r.store.most > 16 {
			t.Errorf("%d reads ran at once", r.store.most)
		}
		r.store.took()
		r.after(10 * poll)
		reads := r.store.took()
		if n := len(reads); n < 9*files || n > 11*files {
			t.Errorf("%d reads in 10 polls of %d paths", n, files)
		}
		var first, last time.Time
		for _, read := range reads[:files/2] {
			if first.IsZero() {
				first = read.at
			}
			last = read.at
		}
		if last.Sub(first) < time.Second {
			t.Errorf("half of the reads came within %v: jitter must spread them", last.Sub(first))
		}
	})
}
