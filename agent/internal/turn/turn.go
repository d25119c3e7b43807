// Package turn is the agent's only loop, and the only owner of time: it decides when a secret is read, judged, rendered
// and asked for again.
//
// A path in the store is read by one goroutine, whatever the number of its fields, so one path's failure can't delay
// another's. Between all of them and the store stands one outage: when the store itself fails, a single probe stands
// for everybody.
//
// Whatever fails, the last good value stays in force and in its file, and Status says what is wrong.
//
// Rejected: one scheduler with a heap of due paths and a pool of workers. It needs the same states and reads worse; a
// thousand parked goroutines cost a few MiB.
package turn

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// Sink is where values go. Both methods may be called concurrently.
type Sink interface {
	// Adopt returns what file holds, or an error if it is missing or not fit to be taken over.
	Adopt(file string) (secret.Value, secret.Identity, error)
	// Render makes file hold v, touching nothing if it does already; written says which. On an error the old file stands.
	Render(file string, v secret.Value) (id secret.Identity, written bool, err error)
}

// Gate says whether a value that the store holds may be published.
type Gate interface {
	// Judge judges v, which is to replace incumbent (zero if there is none), for file. It may block on the network, within
	// its own bound. It is never called for a value that is in force already.
	Judge(ctx context.Context, file string, v, incumbent secret.Value) Verdict
}

// Verdict is a Gate's answer. The zero Verdict means: publish.
type Verdict struct {
	// Held says why the value may not be published; empty if it may.
	Held string
}

// Secret is one file to render and where its value comes from.
type Secret struct {
	File string
	Ref  secret.Ref
}

// Config is what a Loop needs. All fields but Log are required.
type Config struct {
	Source  source.Source
	Gate    Gate
	Sink    Sink
	Secrets []Secret
	// Poll is the mean time between two reads of a path, unless the store says otherwise; each wait is within 10 % of it.
	Poll time.Duration
	// Log gets one line for each change of state. Nil: nowhere.
	Log *slog.Logger
}

// Loop keeps files in step with a store. Its methods are safe for concurrent use; Run may be called once.
type Loop struct {
	config Config
	store  *store
	paths  []*path
	files  []*file // in the order of Config.Secrets
}

// New adopts the files that stand already and prepares the loop. It doesn't ask the store.
func New(c Config) *Loop {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	l := &Loop{config: c, store: newStore(c.Source, c.Log)}
	byPath := map[string]*path{}
	for _, s := range c.Secrets {
		p := byPath[s.Ref.Path]
		if p == nil {
			p = &path{name: s.Ref.Path, loop: l}
			byPath[s.Ref.Path] = p
			l.paths = append(l.paths, p)
		}
		f := newFile(s, c)
		p.files = append(p.files, f)
		l.files = append(l.files, f)
	}
	return l
}

// Run reads, judges and renders until ctx ends, then waits for all that it started. No failure of the store ends it.
func (l *Loop) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	if keeper, ok := l.config.Source.(source.Keeper); ok {
		wg.Go(func() { l.store.keep(ctx, keeper) })
	}
	for _, p := range l.paths {
		wg.Go(func() { p.run(ctx) })
	}
}

// path is one path in the store and the files that its fields are rendered to.
type path struct {
	name  string
	files []*file
	loop  *Loop
}

func (p *path) run(ctx context.Context) {
	for ctx.Err() == nil {
		wait := p.turn(ctx)
		for _, f := range p.files {
			f.expectNext(time.Now().Add(wait))
		}
		pause(ctx, wait)
	}
}

// turn goes once from the store to the files, and returns how long to wait before the next time.
func (p *path) turn(ctx context.Context) time.Duration {
	record, err := p.loop.store.fetch(ctx, p.name, p.repair)
	if ctx.Err() != nil {
		return 0
	}
	poll := jitter(p.loop.config.Poll)
	if err != nil {
		for _, f := range p.files {
			f.fail(err)
		}
		p.repair()
		return failed(err, poll)
	}
	defer record.Clear()
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, f := range p.files {
		wg.Go(func() { f.take(ctx, record) })
	}
	if record.RefreshAfter > 0 {
		return jitter(record.RefreshAfter)
	}
	return poll
}

// repair puts back what is in force, should somebody have changed the files. It asks no store.
func (p *path) repair() {
	for _, f := range p.files {
		f.repair()
	}
}

// failed returns the wait after a failure of this path alone: a broken secret is asked for no more often than a good one.
func failed(err error, poll time.Duration) time.Duration {
	var e *source.Error
	if errors.As(err, &e) {
		return max(poll, e.RetryAfter)
	}
	return poll
}

// jitter spreads d by 10 % either way, so that agents that started together drift apart.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()*0.2-0.1)*float64(d))
}

// pause waits for d or for the end of ctx.
func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
