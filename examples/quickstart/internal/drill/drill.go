// Package drill rotates a key again and again while the app is asked for answers, and reports what became of each request.
//
// A rotation waits until all requests that were due before the one before it have been answered. So none lives through more
// than one, as in real life, however slow a crowded machine makes them: the app runs a request again twice at most.
package drill

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/examples/internal/load"
	"github.com/keyturn/keyturn/examples/quickstart/internal/report"
	"github.com/keyturn/keyturn/examples/quickstart/internal/stage"
)

const (
	// warmUp is how long there is load before the first rotation and after the last.
	warmUp = time.Second
	// useTimeout bounds how long a new key may take to come into use; then the run is broken off.
	useTimeout = 45 * time.Second
)

// Config says what to do. All of its first group is required, and what the weather needs.
type Config struct {
	Weather   Weather
	SDK       string
	Rate      int           // requests a second
	Streams   float64       // the share of them that are streamed
	Rotations int           // how many
	Interval  time.Duration // mean time from when a new key is in use to the next rotation
	Poll      time.Duration // the agent's poll interval

	Delay  time.Duration // how long a new key is refused in the weather Delayed
	Outage time.Duration // how long Vault is gone in the weather Outage
	// Real is the real API to talk to instead of a stand-in; only in the weather Overlap.
	Real *Real
	// Watch, if not nil, is told what happens, by one goroutine at a time.
	Watch func(Moment)
}

// Real is the Gemini API with keys of a person's own. Nothing is revoked there.
type Real struct {
	Keys           [2]string // they take turns
	BaseURL, Model string    // empty: the default
	Environ        []string  // how to get there: HTTPS_PROXY and the like, for both processes
}

// run is one run under way.
type run struct {
	Config
	stage *stage.Stage
	pod   *stage.Pod
	keys  *keys
	began time.Time

	uses     uses
	refusals refusals
	tally    tally
	watching sync.Mutex // held while Watch is called

	rotations []rotation
	samples   []report.Sample
}

// Run makes one run on s and returns what came of it. What goes wrong under test is in the result; the error is about the
// drill itself, or ctx's.
func Run(ctx context.Context, s *stage.Stage, c Config) (_ report.Run, err error) {
	r := &run{Config: c, stage: s, keys: newKeys(c.Real), uses: newUses()}
	defer r.keys.close()
	if r.keys.standIn != nil {
		r.keys.standIn.Observe(r.refusals.note)
	}
	if err := s.Vault.Write(ctx, r.keys.current); err != nil {
		return report.Run{}, fmt.Errorf("write the first key to Vault: %w", err)
	}
	reads, err := s.Vault.Reads()
	if err != nil {
		return report.Run{}, err
	}
	if r.pod, err = s.Pod(ctx, r.podConfig()); err != nil {
		return report.Run{}, err
	}
	defer func() { err = errors.Join(err, r.pod.Close()) }()
	records, broken := r.play(ctx)
	if ctx.Err() != nil {
		return report.Run{}, ctx.Err()
	}
	return r.result(ctx, records, broken, reads)
}

func (r *run) podConfig() stage.PodConfig {
	c := stage.PodConfig{SDK: r.SDK, Poll: r.Poll, BaseURL: r.keys.url()}
	if r.Real != nil {
		c.Model, c.Environ = r.Real.Model, r.Real.Environ
	}
	return c
}

// play asks, rotates and watches until all rotations are done. broken says why they aren't.
func (r *run) play(ctx context.Context) (records []load.Record, broken error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching, unwatch := context.WithCancel(ctx)
	defer unwatch()
	stop := make(chan struct{})
	var group, watchers sync.WaitGroup
	r.began = time.Now()
	group.Go(func() { records = load.Run(ctx, stop, r.load()) })
	watchers.Go(func() { r.sample(watching) })
	watchers.Go(func() { r.tick(watching) })
	broken = r.rotateAll(ctx)
	close(stop)
	group.Wait()
	unwatch()
	watchers.Wait()
	return records, broken
}

func (r *run) load() load.Config {
	longest := 2*warmUp + time.Duration(r.Rotations)*(2*r.Interval+r.Delay+r.Outage+useTimeout)
	c := load.Config{
		URL: r.pod.App, Rate: r.Rate, Streams: r.Streams, Limit: int(longest.Seconds()) * r.Rate,
		Prompt: prompt, Answered: r.answered,
	}
	if r.keys.standIn != nil {
		c.Expect = func(id int) string { return geminitest.Answer(prompt(id)) }
	}
	return c
}

// prompt names the request, so that the stand-in's record can be joined with ours.
func prompt(id int) string { return fmt.Sprintf(promptFormat, id) }

const promptFormat = "Name a colour. Request %d."

func (r *run) answered(record load.Record) {
	r.tally.count(record, r.refusals.of(record.ID) > 0) // first: whoever waits for the use looks at the tally
	if record.OK() {
		r.uses.note(record.Generation, record.Done)
	}
}

// rotateAll rotates until all rotations are done, and asks for a while before and after.
func (r *run) rotateAll(ctx context.Context) error {
	first, err := r.firstUse(ctx, 1)
	if err != nil {
		return fmt.Errorf("the first key does not come into use: %w", err)
	}
	generation := first
	if err := r.sleep(ctx, warmUp); err != nil {
		return err
	}
	for n := range r.Rotations {
		if err := r.sleep(ctx, jitter(r.Interval)); err != nil {
			return err
		}
		generation++
		if err := r.rotate(ctx, n, generation); err != nil {
			return fmt.Errorf("rotation %d of %d: %w", n+1, r.Rotations, err)
		}
		if err := r.settle(ctx); err != nil {
			return fmt.Errorf("after rotation %d of %d: %w", n+1, r.Rotations, err)
		}
	}
	return r.sleep(ctx, warmUp)
}

// firstUse waits for the first success with this generation or a later one, and returns which it is.
func (r *run) firstUse(ctx context.Context, generation uint64) (uint64, error) {
	deadline := time.Now().Add(useTimeout)
	for time.Now().Before(deadline) {
		if err := r.pod.Failed(); err != nil {
			return 0, err
		}
		short, cancel := context.WithTimeout(ctx, tickInterval)
		got, err := r.uses.await(short, generation)
		cancel()
		if err == nil {
			return got, nil
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	return 0, fmt.Errorf("no success with generation %d within %v", generation, useTimeout)
}

// settle waits until all requests that were due before now have been answered, or have failed.
func (r *run) settle(ctx context.Context) error {
	due := int(time.Since(r.began).Seconds() * float64(r.Rate))
	for deadline := time.Now().Add(useTimeout); !r.tally.settled(due); {
		if time.Now().After(deadline) {
			return fmt.Errorf("there are requests without an outcome after %v", useTimeout)
		}
		if err := r.sleep(ctx, time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// sleep waits for d. It returns early if a process has ended, or ctx has.
func (r *run) sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return r.pod.Failed()
	case <-ctx.Done():
		return ctx.Err()
	}
}
