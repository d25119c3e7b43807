package turn_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/agent/internal/gate"
	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// poll is what every rig's loop has, unless it says otherwise.
const poll = 15 * time.Second

// rig is a loop between fakes, in a bubble of time.
type rig struct {
	t      *testing.T
	store  *fakeStore
	sink   *fakeSink
	gemini *fakeGemini
	log    *logs
	loop   *turn.Loop
	config turn.Config
	stop   func()
}

// story runs f in a bubble with a rig that renders "key" from secret/gemini#key and has its values proven. f starts the loop.
func story(t *testing.T, f func(t *testing.T, r *rig)) {
	synctest.Test(t, func(t *testing.T) {
		r := &rig{t: t, store: newFakeStore(), sink: newFakeSink(), gemini: &fakeGemini{keys: map[string]gate.Answer{}}, log: &logs{}}
		r.config = turn.Config{
			Source: r.store, Sink: r.sink, Gate: gate.New(r.gemini, "key"), Poll: poll, Log: slog.New(slog.NewJSONHandler(r.log, nil)),
			Secrets: []turn.Secret{{File: "key", Ref: secret.Ref{Path: "secret/gemini", Field: "key"}}},
		}
		defer func() { r.stop() }() // a bubble that is left with goroutines in it hides why
		f(t, r)
	})
}

// start makes the loop and runs it. It returns when all that can happen now has happened.
func (r *rig) start() {
	r.loop = turn.New(r.config)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		r.loop.Run(ctx)
	}()
	r.stop = func() {
		cancel()
		<-ended
	}
	synctest.Wait()
}

// put writes a key that Gemini accepts.
func (r *rig) put(key string) {
	r.gemini.answer(key, accepted)
	r.store.put("secret/gemini", key)
}

// after lets d pass, and all that then can happen.
func (r *rig) after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// refresh asks as an app does that holds what the file has, or had if id is given, and demands an outcome.
func (r *rig) refresh(id secret.Identity, refused bool, want turn.Outcome) turn.FileStatus {
	r.t.Helper()
	got, status, err := r.loop.Refresh(r.t.Context(), "key", id, refused)
	if err != nil || got != want {
		r.t.Errorf("a refresh came to %q, %v, want %q", got, err, want)
	}
	return status
}

// file returns the one file's state.
func (r *rig) file() turn.FileStatus { return r.loop.Status().Files[0] }

// id returns the identity that the one file has on disk.
func (r *rig) id() secret.Identity {
	_, id := r.sink.get("key")
	return id
}

func (r *rig) wantFile(content string) {
	r.t.Helper()
	if got, _ := r.sink.get("key"); got != content {
		r.t.Errorf("at %v the file holds %q, want %q", time.Now().Format("05.000"), got, content)
	}
}

// wantLines demands exactly these log lines since the last call, as their beginnings.
func (r *rig) wantLines(want ...string) {
	r.t.Helper()
	got := r.log.lines()
	if !slices.EqualFunc(got, want, strings.HasPrefix) {
		r.t.Errorf("logged\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// wantTrouble demands a kind of trouble, or none.
func (r *rig) wantTrouble(kind source.Kind) {
	r.t.Helper()
	if f := r.file(); f.Kind != kind {
		r.t.Errorf("at %v the trouble is %q (%s), want %q", time.Now().Format("05.000"), f.Kind, f.Reason, kind)
	}
}

// many makes the rig render n files from as many paths, unproven.
func (r *rig) many(n int) {
	r.config.Secrets = nil
	for i := range n {
		path := fmt.Sprintf("secret/%d", i)
		r.store.put(path, fmt.Sprintf("value-%d", i))
		r.config.Secrets = append(r.config.Secrets, turn.Secret{File: fmt.Sprintf("file-%d", i), Ref: secret.Ref{Path: path, Field: "key"}})
	}
}
