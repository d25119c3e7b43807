package client_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/sidecar"
	"github.com/keyturn/keyturn/examples/logtest"
)

// instances returns two that differ, which only sockets do; nobody listens on them.
func instances(t *testing.T) (first, second sidecar.Instance) {
	t.Helper()
	dir := t.TempDir()
	instance := func(name string) sidecar.Instance {
		path := filepath.Join(dir, name)
		if err := syscall.Mknod(path, syscall.S_IFSOCK|0o600, 0); err != nil {
			t.Fatal(err)
		}
		return sidecar.New(path, "key").Instance()
	}
	first, second = instance("first"), instance("second")
	if first.IsZero() || first == second {
		t.Fatalf("%v and %v are to differ", first, second)
	}
	return first, second
}

// rig is a client that runs, and all that it deals with. Its time is that of its bubble.
type rig struct {
	*testing.T
	*client.Client
	api   *api
	file  *file
	agent *agent
	log   *logtest.Page
	start time.Time
	anew  sidecar.Instance // another one than the agent's

	stop func() error // ends Run, waits, and returns what it returned
}

// story runs a test in a bubble, with a client that runs and has no key yet.
func story(t *testing.T, tell func(r *rig)) { begin(t, true, tell) }

// storyWithoutAgent is story, and there is nobody to ask.
func storyWithoutAgent(t *testing.T, tell func(r *rig)) { begin(t, false, tell) }

func begin(t *testing.T, withAgent bool, tell func(r *rig)) {
	t.Helper()
	first, second := instances(t)
	synctest.Test(t, func(t *testing.T) {
		r := &rig{T: t, api: newAPI(), file: newFile(), agent: &agent{instance: first}, log: &logtest.Page{}, start: time.Now(), anew: second}
		config := client.Config{Keys: r.file, Backend: r.api, Log: slog.New(slog.NewTextHandler(r.log, nil))}
		if withAgent {
			config.Agent = r.agent
		}
		r.Client = client.New(config)
		r.stop = run(r.Client)
		defer r.stop()
		tell(r)
	})
}

func run(c *client.Client) (stop func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	return sync.OnceValue(func() error { cancel(); return <-ended })
}

// put makes the file hold key, and waits until all that follows from it at once has happened.
func (r *rig) put(key string, inode uint64) {
	r.Helper()
	r.file.put(r, key, inode)
	synctest.Wait()
}

// ask makes one request and asserts which generation answers it.
func (r *rig) ask(generation uint64) {
	r.Helper()
	answer, err := r.Generate(r.Context(), prompt)
	if err != nil || answer.Generation != generation || answer.Text != "answer to "+prompt {
		r.Errorf("after %v: %+v, %v; want an answer of generation %d", r.elapsed(), answer, err, generation)
	}
	synctest.Wait()
}

// askRefused makes one request, and asserts that every key is refused.
func (r *rig) askRefused() {
	r.Helper()
	answer, err := r.Generate(r.Context(), prompt)
	if !errors.Is(err, client.ErrRefused) || answer != (client.Answer{}) {
		r.Errorf("after %v: %+v, %v; want ErrRefused", r.elapsed(), answer, err)
	}
	synctest.Wait()
}

// asking makes a request and returns where its outcome comes.
func (r *rig) asking(ctx context.Context) <-chan outcome {
	done := make(chan outcome, 1)
	go func() {
		answer, err := r.Generate(ctx, prompt)
		done <- outcome{answer, err, r.elapsed()}
	}()
	synctest.Wait()
	return done
}

type outcome struct {
	client.Answer
	err error
	at  time.Duration
}

func (r *rig) elapsed() time.Duration { return time.Since(r.start) }

// sleep lets d pass in the bubble.
func (r *rig) sleep(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *rig) wantCalls(want string) {
	r.Helper()
	if got := r.api.calls(); got != want {
		r.Errorf("after %v the calls were made with %q, want %q", r.elapsed(), got, want)
	}
}

// wantElapsed asserts how long the story has taken to this point.
func (r *rig) wantElapsed(want time.Duration) {
	r.Helper()
	if got := r.elapsed(); got != want {
		r.Errorf("it took %v, want %v", got, want)
	}
}

func (r *rig) wantReady(want bool) {
	r.Helper()
	if s := r.Status(); s.Ready != want || want != (s.Reason == "") {
		r.Errorf("after %v: ready is %v, for the reason %q; want %v", r.elapsed(), s.Ready, s.Reason, want)
	}
}

// wantLogged asserts how many lines of the log hold text.
func (r *rig) wantLogged(text string, want int) {
	r.Helper()
	if got := strings.Count(r.log.String(), text); got != want {
		r.Errorf("%q was logged %d times, want %d:\n%s", text, got, want, r.log)
	}
}
