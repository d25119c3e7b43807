package drill

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/examples/quickstart/internal/report"
	"github.com/keyturn/keyturn/examples/quickstart/internal/stage"
)

// Kind is what a Moment is about.
type Kind int

// Kinds of moments.
const (
	Tick    Kind = iota // nothing but the passing of time
	Written             // Vault has answered the write of Rotation
	InUse               // Rotation has come to its end: its key had its first success
)

// Moment is the state of a run when something happened. Its counts are since the start of the run.
type Moment struct {
	Kind       Kind
	Elapsed    time.Duration
	Rotation   int           // from 1; 0 for a Tick
	Generation uint64        // that answers; of InUse: the new key's
	Swap       time.Duration // of InUse: how long the new key took to its first success, from when it could be used

	Answered, Rescued, Failed int // Rescued ones are among the answered
}

const (
	tickInterval   = 100 * time.Millisecond
	sampleInterval = time.Second
)

// tell completes m and hands it to Watch.
func (r *run) tell(m Moment) {
	if r.Watch == nil {
		return
	}
	r.tally.mu.Lock()
	m.Answered, m.Rescued, m.Failed = r.tally.answered, r.tally.rescued, r.tally.failed
	if m.Generation == 0 {
		m.Generation = r.tally.generation
	}
	r.tally.mu.Unlock()
	r.watching.Lock()
	defer r.watching.Unlock()
	m.Elapsed = time.Since(r.began)
	r.Watch(m)
}

// tick tells of the passing of time until ctx ends.
func (r *run) tick(ctx context.Context) {
	every(ctx, tickInterval, func() { r.tell(Moment{Kind: Tick}) })
}

// sample looks at both processes until ctx ends. A scrape that fails leaves a gap: the run itself notices a process that ended.
func (r *run) sample(ctx context.Context) {
	every(ctx, sampleInterval, func() {
		at := time.Since(r.began).Seconds()
		agent, err := r.pod.AgentMetrics(ctx)
		if err != nil {
			return
		}
		app, err := r.pod.AppMetrics(ctx)
		if err != nil {
			return
		}
		r.samples = append(r.samples, report.Sample{
			At: at, AgentMiB: resident(agent), AppMiB: resident(app),
			AgentGoroutines: int(agent["go_goroutines"]), AppGoroutines: int(app["go_goroutines"]),
		})
	})
}

func resident(m stage.Metrics) float64 { return m["process_resident_memory_bytes"] / (1 << 20) }

func every(ctx context.Context, d time.Duration, do func()) {
	ticker := time.NewTicker(d)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}
