// Package turn is the agent's only loop, and the only owner of time: it decides when a secret is read, judged, rendered
// and asked for again.
//
// A path in the store is read by one goroutine, whatever the number of its fields, so one path's failure can't delay
// another's. Between all of them and the store stands one outage: when the store itself fails, a single probe stands
// for everybody. A value that the gate holds is judged again by a goroutine of its own, whatever the store does meanwhile.
//
// Whatever fails, the last good value stays in force and in its file, and Status says what is wrong.
//
// Rejected: one scheduler with a heap of due paths and a pool of workers. It needs the same states and reads worse; a
// thousand parked goroutines cost a few MiB.
package turn

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// Sink is where values go. Its methods may be called concurrently.
type Sink interface {
	// Adopt returns what file holds, or an error if it is missing or not fit to be taken over.
	Adopt(file string) (secret.Value, secret.Identity, error)
	// Render replaces file by one that holds v. On an error the old file stands.
	Render(file string, v secret.Value) (secret.Identity, error)
	// Drift says in a few words how file is no longer the one that holds v and goes by id; "" if it is. It is cheap.
	Drift(file string, v secret.Value, id secret.Identity) string
	// Mend puts the directory of all files back. Found says in a few words what was wrong with it, "" if nothing was; after
	// an error it still is. Whatever was wrong, the files may be gone.
	Mend() (found string, err error)
}

// Gate says whether a value may be published. Both methods may be called concurrently and may block on the network, each
// within a bound of its own.
type Gate interface {
	// Judge judges a value that the store holds and that is not in force.
	Judge(ctx context.Context, c Candidate) Verdict
	// Refused asks whether the value in force of file is refused where it is used; known is false if that can't be told.
	Refused(ctx context.Context, file string, inForce secret.Value) (refused, known bool)
}

// Candidate is a value to judge.
type Candidate struct {
	File string
	// Value is to replace InForce, which is zero if there is none.
	Value, InForce secret.Value
	// Claimed: somebody says that InForce is refused. Known: it is known to be.
	Claimed, Known bool
	// RefusedBefore: Value was refused once, and has not been accepted since.
	RefusedBefore bool
}

// Verdict is a Gate's answer. The zero Verdict means: publish.
type Verdict struct {
	// Held says why the value may not be published; empty if it may.
	Held string
	// Refused: it is held because it was proven bad, rather than malformed or out of reach.
	Refused bool
	// Unproven says why it is published without proof; empty if it was proven, or needs no proof.
	Unproven string
	// Retry: the answer may change without the value changing, and not before RetryAfter.
	Retry      bool
	RetryAfter time.Duration
	// Calls counts what was asked of others for this verdict; it slows the retries.
	Calls int
	// InForceRefused: the value in force was found to be refused.
	InForceRefused bool
}

// Secret is one file to render and where its value comes from.
type Secret struct {
	File string
	Ref  secret.Ref
}

// Config is what a Loop needs. All fields but Memory and Log are required.
type Config struct {
	Source  source.Source
	Gate    Gate
	Sink    Sink
	Secrets []Secret
	// Memory keeps the values in force. Nil: they lie in ordinary memory.
	Memory *secret.Memory
	// Poll is the mean time between two reads of a path, unless the store says otherwise; each wait is within 10 % of it.
	Poll time.Duration
	// Log gets one line for each change of state. Nil: nowhere.
	Log *slog.Logger
}

// Loop keeps files in step with a store. Its methods are safe for concurrent use; Run may be called once.
type Loop struct {
	config Config
	store  *store
	asked  budget
	paths  []*path
	files  []*file // in the order of Config.Secrets
	work   sync.WaitGroup

	directory problems // of mend alone

	unlocked atomic.Bool // a value in force could not be kept in config.Memory, and that was said
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
			p = &path{name: s.Ref.Path, loop: l, wake: make(chan struct{}, 1)}
			byPath[s.Ref.Path] = p
			l.paths = append(l.paths, p)
		}
		f := newFile(s, p, c)
		p.files = append(p.files, f)
		l.files = append(l.files, f)
	}
	return l
}

// Run reads, judges and renders until ctx ends, then waits for all that it started. No failure of the store ends it.
func (l *Loop) Run(ctx context.Context) {
	defer l.work.Wait()
	if keeper, ok := l.config.Source.(source.Keeper); ok {
		l.work.Go(func() { l.store.keep(ctx, keeper) })
	}
	for _, p := range l.paths {
		l.work.Go(func() { p.run(ctx) })
	}
	l.work.Go(func() { l.mend(ctx) })
}

// jitter spreads d by 10 % either way, so that agents that started together drift apart.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()*0.2-0.1)*float64(d))
}

// pause waits for d, for the end of ctx, or for wake, which may be nil.
func pause(ctx context.Context, d time.Duration, wake <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
}

// signal wakes whoever pauses on wake, or the next who does. It never blocks.
func signal(wake chan<- struct{}) {
	select {
	case wake <- struct{}{}:
	default:
	}
}
