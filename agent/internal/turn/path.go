package turn

import (
	"context"
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
	asking []chan struct{} // each closed by the first read that began after it came
}

func (p *path) run(ctx context.Context) {
	var due time.Time // of the next read
	for ctx.Err() == nil {
		if asking := p.takeAsking(ctx); len(asking) > 0 || !time.Now().Before(due) {
			due = time.Now().Add(p.turn(ctx))
			for _, answered := range asking {
				close(answered)
			}
		}
		next := due
		for _, f := range p.files {
			if again := f.rejudge(ctx); !again.IsZero() && again.Before(next) {
				next = again
			}
			f.expectNext(due)
		}
		pause(ctx, time.Until(next), p.wake)
	}
}

// turn goes once from the store to the files, and returns how long to wait before the next time.
func (p *path) turn(ctx context.Context) time.Duration {
	record, err := p.loop.store.fetch(ctx, p.name, p.repair)
	if ctx.Err() != nil {
		return 0
	}
	wait := jitter(p.loop.config.Poll)
	if err != nil {
		for _, f := range p.files {
			f.fail(err)
		}
		p.repair()
		// A broken secret is asked for no more often than a good one.
		return max(wait, retryAfter(err))
	}
	defer record.Clear()
	var wg sync.WaitGroup
	for _, f := range p.files {
		wg.Go(func() { f.take(ctx, record) })
	}
	wg.Wait()
	if record.RefreshAfter > 0 {
		return jitter(record.RefreshAfter)
	}
	return wait
}

// repair puts back what is in force, should somebody have changed the files. It asks no store.
func (p *path) repair() {
	for _, f := range p.files {
		f.repair()
	}
}

// ask makes the loop read the path now. It returns when a read that began after the call has been dealt with, when the
// store fails as a whole, or when ctx ends; only the last is an error. Calls that come together share one read.
func (p *path) ask(ctx context.Context) error {
	fails := p.loop.store.fails()
	answered := make(chan struct{})
	p.mu.Lock()
	p.asking = append(p.asking, answered)
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	select {
	case <-answered:
	case <-fails:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// takeAsking returns those who wait for the read that now begins. It waits first if they come too often.
func (p *path) takeAsking(ctx context.Context) []chan struct{} {
	p.mu.Lock()
	waiting := len(p.asking)
	p.mu.Unlock()
	if waiting == 0 {
		return nil
	}
	p.loop.asked.Wait(ctx) // an error is ctx's, which the caller looks at
	p.mu.Lock()
	defer p.mu.Unlock()
	asking := p.asking
	p.asking = nil
	return asking
}

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
