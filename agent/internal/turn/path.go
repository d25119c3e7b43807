package turn

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// path is one path in the store and the files that its fields are rendered to.
type path struct {
	name  string
	files []*file
	loop  *Loop

	wake   chan struct{} // capacity one: somebody waits for a read
	mu     sync.Mutex
	asking chan struct{} // closed by the first read that begins from now on; nil while nobody waits for that
}

func (p *path) run(ctx context.Context) {
	var due time.Time
	for ctx.Err() == nil {
		wait := time.Until(due)
		if wait > 0 && p.isAsked() {
			free, ok := p.loop.asked.take()
			wait = min(wait, free)
			if ok {
				wait = 0
			}
		}
		if wait <= 0 {
			due = p.answer(ctx)
			continue
		}
		pause(ctx, wait, p.wake)
	}
}

// answer reads the path for all who wait for that, and returns when to read it next.
func (p *path) answer(ctx context.Context) (due time.Time) {
	p.mu.Lock()
	asking := p.asking
	p.asking = nil
	p.mu.Unlock()
	wait := p.turn(ctx)
	due = time.Now().Add(wait) // the turn may have waited through an outage
	for _, f := range p.files {
		f.expectNext(due)
	}
	if asking != nil {
		close(asking)
	}
	return due
}

// turn goes once from the store to the files, and returns how long to wait before the next time.
func (p *path) turn(ctx context.Context) time.Duration {
	record, err := p.loop.store.fetch(ctx, p.name)
	if ctx.Err() != nil {
		return 0
	}
	wait := jitter(p.loop.config.Poll)
	if err != nil {
		for _, f := range p.files {
			f.lose(err)
		}
		// A broken secret is asked for no more often than a good one.
		return max(wait, retryAfter(err))
	}
	defer record.Clear()
	var others sync.WaitGroup
	for _, f := range p.files[1:] {
		others.Go(func() { f.take(ctx, record) })
	}
	p.files[0].take(ctx, record)
	others.Wait()
	if record.RefreshAfter > 0 {
		return jitter(record.RefreshAfter)
	}
	return wait
}

// ask makes the loop read the path now. It returns when a read that began after the call has been dealt with, when the
// store fails as a whole, or when ctx ends; only the last is an error. Calls that come together share one read.
func (p *path) ask(ctx context.Context) error {
	fails := p.loop.store.fails()
	p.mu.Lock()
	if p.asking == nil {
		p.asking = make(chan struct{})
	}
	answered := p.asking
	p.mu.Unlock()
	signal(p.wake)
	select {
	case <-answered:
	case <-fails:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

func (p *path) isAsked() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.asking != nil
}

func asSourceError(err error) (*source.Error, bool) { return errors.AsType[*source.Error](err) }

func retryAfter(err error) time.Duration {
	if e, ok := asSourceError(err); ok {
		return e.RetryAfter
	}
	return 0
}

func kindOf(err error) source.Kind {
	if e, ok := asSourceError(err); ok {
		return e.Kind
	}
	return source.Unavailable
}
