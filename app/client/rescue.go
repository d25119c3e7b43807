package client

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/app/swap"
)

const (
	// patience is how long a request waits for a better key, in all.
	patience = 2 * time.Second
	// reruns is how often a request is run again at most.
	reruns = 2
	// quiet is for how long the log doesn't say again of one generation that its key is refused, or that requests fail; and
	// how long after its last probe a doubt that comes back is the same one.
	quiet = time.Minute
	// A generation has proven itself after that many successes over that time; its predecessor may go then.
	provenSuccesses, provenTime = 100, time.Minute
)

// generation is one key and what is known of it.
type generation struct {
	client   gemini.Client
	key      keyfile.Key
	since    time.Time
	identity atomic.Pointer[keyfile.Identity] // of the file that it was read from last

	refused   atomic.Bool
	hollow    atomic.Bool               // nothing but probes was accepted between its last two refusals
	warned    atomic.Pointer[time.Time] // when its refusal was logged last
	first     atomic.Pointer[time.Time] // success; nil before
	successes atomic.Int64              // since it was refused last
	proving   atomic.Pointer[time.Time] // the first of them
	proven    atomic.Bool
}

type lease = swap.Lease[*generation]

// attempt is one run of a request. begun reports whether something of its answer has reached the caller, and was accepted.
type attempt func(l lease) (begun bool, err error)

// run makes call with a leased client, and again with another one if Gemini refuses the key, as long as nothing of the
// answer has begun to reach the caller.
func (c *Client) run(ctx context.Context, call attempt) error {
	c.counters.calls.Add(1)
	w := waiting{left: patience}
	var refusal error
	for rerun := 0; ; rerun++ {
		l, err := c.lease(ctx, &w, rerun)
		if err != nil {
			return because(err, refusal)
		}
		begun, err := c.try(l, call)
		switch {
		case gemini.FaultOf(err) != gemini.FaultKey:
			if err == nil && rerun > 0 {
				c.counters.rescued.Add(1)
			}
			return err
		case begun:
			return err
		case rerun == reruns:
			return because(ErrRefused, err)
		}
		refusal = err
	}
}

// try makes call with l, notes what its outcome says about the key, and gives l back, even if the caller of a stream
// panics.
func (c *Client) try(l lease, call attempt) (begun bool, err error) {
	defer l.Release()
	begun, err = call(l)
	switch {
	case gemini.FaultOf(err) == gemini.FaultKey:
		c.counters.refused.Add(1)
		c.refuse(l, err)
	case err == nil && !begun:
		c.accept(l)
	}
	return begun, err
}

// because adds the refusal that led to err, if there was one.
func because(err, refusal error) error {
	if refusal == nil || errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: %w", err, refusal)
}

// accept counts a success. The first one is acknowledged; enough of them end the predecessor.
func (c *Client) accept(l lease) {
	g, now := l.Value(), time.Now()
	if g.refused.Load() {
		return // it was accepted before it was refused
	}
	if g.successes.Add(1) == 1 {
		g.proving.Store(&now)
		if g.first.CompareAndSwap(nil, &now) {
			c.wakeAcknowledge()
		}
	}
	if c.gaveUp.Load() != nil {
		c.recovered(l)
	}
	since := g.proving.Load()
	if since == nil || g.proven.Load() || g.successes.Load() < provenSuccesses || now.Sub(*since) < provenTime {
		return
	}
	g.proven.Store(true)
	if before, ok := c.handle.AcquirePredecessor(); ok {
		if before.Generation() < l.Generation() {
			c.handle.Drop(before.Generation())
		}
		before.Release()
	}
}

// refuse notes that Gemini refused a generation's key, and wakes those who look for a better one.
func (c *Client) refuse(l lease, err error) {
	g := l.Value()
	if c.over.Load() || g.refused.Swap(true) {
		return
	}
	g.hollow.Store(g.successes.Swap(0) == 0) // a key that some front ends refuse proves nothing by what the others accept
	c.handle.Drop(l.Generation())            // as a predecessor it can rescue nobody
	if now, last := time.Now(), g.warned.Load(); last == nil || now.Sub(*last) >= quiet {
		g.warned.Store(&now)
		c.config.Log.Warn("Gemini refuses the key", "generation", l.Generation(), "reason", err.Error())
	}
	c.announce()
}

// absolve notes that a probe of a generation's key was accepted, after doubts.
func (c *Client) absolve(l lease) {
	l.Value().refused.Store(false)
	c.recovered(l)
}

// recovered ends the state in which requests fail at once, if it is the current key that was accepted: an older one, which
// a long stream still holds, rescues nobody.
func (c *Client) recovered(l lease) {
	if !c.holds(l.Generation(), func(*generation) bool { return true }) {
		return
	}
	if c.settle() {
		c.config.Log.Info("Gemini accepts the key: ready again", "generation", l.Generation())
	}
	c.announce()
}

// announce wakes everybody who waits for news.
func (c *Client) announce() {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.news)
	c.news = make(chan struct{})
}

func (c *Client) nextNews() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.news
}

// lease returns a generation to run a request on: the current one, or its predecessor if the current one is refused. If
// both are, it waits for a better one for as long as w allows.
func (c *Client) lease(ctx context.Context, w *waiting, rerun int) (lease, error) {
	if c.over.Load() {
		return c.atHand(rerun)
	}
	if l, _, ok := c.usable(); ok {
		return l, nil
	}
	for {
		news := c.nextNews()
		if c.over.Load() {
			return c.atHand(rerun)
		}
		l, current, ok := c.usable()
		switch {
		case ok:
			return l, nil
		case !w.begun && c.isInVain(current):
			return lease{}, hopeless(current)
		case w.left <= 0:
			if w.from == current { // otherwise the current one has not been waited for that long
				c.giveUp(current)
			}
			return lease{}, hopeless(current)
		case !w.begun:
			w.begun, w.from = true, current
			c.counters.waited.Add(1)
		}
		if err := w.wait(ctx, c.handle.After(current), news); err != nil {
			return lease{}, err
		}
	}
}

// atHand leases what there is once Run has ended: the current generation, and its predecessor for who was refused with that.
func (c *Client) atHand(rerun int) (lease, error) {
	switch rerun {
	case 0:
		if l, ok := c.handle.Acquire(); ok {
			return l, nil
		}
		return lease{}, ErrNoKey
	case 1:
		if l, ok := c.handle.AcquirePredecessor(); ok {
			return l, nil
		}
	}
	return lease{}, ErrRefused
}

// usable leases a generation whose key isn't refused, if there is one. It also returns which one is current, 0 if none is.
func (c *Client) usable() (_ lease, current uint64, ok bool) {
	l, ok := c.handle.Acquire()
	if !ok {
		return lease{}, 0, false
	}
	current = l.Generation()
	if !isRefused(l.Value()) {
		return l, current, true
	}
	l.Release()
	before, ok := c.handle.AcquirePredecessor()
	if !ok {
		return lease{}, current, false
	}
	if isRefused(before.Value()) { // a moment ago, and it is about to be dropped
		before.Release()
		return lease{}, current, false
	}
	return before, current, true
}

func hopeless(current uint64) error {
	if current == 0 {
		return ErrNoKey
	}
	return ErrRefused
}

// giveUp notes that a request waited in vain, so that those who come after it fail at once, until there is a newer
// generation or a probe is accepted. Those who wait already have their own time: the next key may come within it.
func (c *Client) giveUp(current uint64) {
	if c.gaveUp.Swap(&current) == nil {
		c.complain()
		c.announce() // a probe may have been accepted a moment ago, and then nobody would ask again
	}
}

func (c *Client) isInVain(current uint64) bool {
	given := c.gaveUp.Load()
	return given != nil && *given == current
}

// waiting bounds the time that one request waits, in all its runs together. The runs themselves don't count: a model may
// take its time.
type waiting struct {
	left  time.Duration
	begun bool
	from  uint64 // the generation that was current when it began
}

// wait returns when there is something new to look at, or nothing left; with ctx's error if ctx has ended.
func (w *waiting) wait(ctx context.Context, newer, news <-chan struct{}) error {
	began := time.Now()
	timer := time.NewTimer(w.left)
	defer timer.Stop()
	select {
	case <-newer:
	case <-news:
	case <-timer.C:
	case <-ctx.Done():
	}
	w.left -= time.Since(began)
	return ctx.Err()
}
