package client

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/sidecar"
)

const (
	// The agent is asked again after a time that doubles between these two: the write may reach the store's node a moment
	// after the old key died.
	minRefresh, maxRefresh = 50 * time.Millisecond, 5 * time.Second
	// spree is how many refreshes the waits alone bound; beyond that, one generation gets one each instalment, which leaves a
	// request's patience time for what it brings. A key that is refused for good never gets that far.
	spree, instalment = 16, time.Second
	// refreshTimeout bounds one refresh: a hung agent must not keep the app from asking the next one.
	refreshTimeout = 2 * time.Second
	// A key in doubt is probed four times a second at first, since one that was just made is refused for some seconds and is
	// to serve within a second once it isn't; then after times that double between these two.
	eager              = 10 * time.Second
	minProbe, maxProbe = 250 * time.Millisecond, 5 * time.Second
	probeTimeout       = 5 * time.Second
)

// await blocks until the current generation is such as wanted says, and returns it; false if ctx ends first.
func (c *Client) await(ctx context.Context, wanted func(*generation) bool) (number uint64, ok bool) {
	for ctx.Err() == nil {
		news, current := c.nextNews(), uint64(0)
		if l, ok := c.handle.Acquire(); ok {
			current = l.Generation()
			fits := wanted(l.Value())
			l.Release()
			if fits {
				return current, true
			}
		}
		select {
		case <-news:
		case <-c.handle.After(current):
		case <-ctx.Done():
		}
	}
	return 0, false
}

// holds reports whether the generation with that number is still current and such as wanted says.
func (c *Client) holds(number uint64, wanted func(*generation) bool) bool {
	l, ok := c.handle.Acquire()
	if !ok {
		return false
	}
	defer l.Release()
	return l.Generation() == number && wanted(l.Value())
}

// lasts reports whether holds does for as long as d. It returns at once when holds doesn't, or ctx ends.
func (c *Client) lasts(ctx context.Context, d time.Duration, number uint64, wanted func(*generation) bool) bool {
	if d <= 0 {
		return c.holds(number, wanted)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	for {
		news := c.nextNews()
		if ctx.Err() != nil || !c.holds(number, wanted) {
			return false
		}
		select {
		case <-timer.C:
			return c.holds(number, wanted)
		case <-news:
		case <-c.handle.After(number):
		case <-ctx.Done():
		}
	}
}

func isRefused(g *generation) bool { return g.refused.Load() }

// refreshWhenRefused asks the agent for a better key whenever the current one is refused, until there is one. However many
// requests were refused, one refresh is under way.
func (c *Client) refreshWhenRefused(ctx context.Context) {
	var spent expense
	for {
		number, ok := c.await(ctx, isRefused)
		if !ok {
			return
		}
		for wait := time.Duration(0); c.lasts(ctx, max(wait, spent.wait(number)), number, isRefused); {
			c.refresh(ctx, number)
			spent.add()
			wait = min(max(2*wait, minRefresh), maxRefresh)
		}
	}
}

// expense is what the refreshes for one generation have cost: each is paid off within an instalment, one after the other.
type expense struct {
	generation uint64
	paid       time.Time // when all of them will be
}

// wait returns how long the next refresh for a generation has to wait, so that no more than spree of them are unpaid.
func (e *expense) wait(generation uint64) time.Duration {
	if e.generation != generation {
		*e = expense{generation: generation}
	}
	return time.Until(e.paid.Add(-(spree - 1) * instalment))
}

func (e *expense) add() {
	if now := time.Now(); e.paid.Before(now) {
		e.paid = now
	}
	e.paid = e.paid.Add(instalment)
}

// refresh asks once, on behalf of the generation with that number, if it is still current and refused.
func (c *Client) refresh(ctx context.Context, number uint64) {
	l, ok := c.handle.Acquire()
	if !ok {
		return
	}
	defer l.Release()
	if l.Generation() != number || !isRefused(l.Value()) {
		return // what is refused is not the file that the agent has in force
	}
	c.counters.refreshes.Add(1)
	bounded, cancel := context.WithTimeout(ctx, refreshTimeout)
	defer cancel()
	answer, err := c.config.Agent.Refresh(bounded, *l.Value().identity.Load(), true)
	if ctx.Err() != nil {
		return
	}
	c.noteAgent(err)
	if answer.Outcome == sidecar.Published {
		c.config.Keys.Check()
	}
}

// probeInDoubt probes the current key while it is refused, and while nothing has been accepted since requests failed: a
// program that isn't ready gets no requests that could find out.
func (c *Client) probeInDoubt(ctx context.Context) {
	inDoubt := func(g *generation) bool { return g.refused.Load() || c.gaveUp.Load() != nil }
	var d doubt
	for {
		number, ok := c.await(ctx, inDoubt)
		if !ok {
			return
		}
		if d.of != number || !c.holds(number, isHollow) || time.Since(d.probed) > quiet {
			d = doubt{of: number, began: time.Now(), wait: minProbe}
		}
		if c.holds(number, isRefused) && !c.lasts(ctx, d.wait, number, inDoubt) { // it was refused a moment ago
			continue
		}
		c.probe(ctx)
		for c.lasts(ctx, d.next(), number, inDoubt) {
			c.probe(ctx)
		}
	}
}

// doubt is of one generation. One that comes back although probes were accepted, before any request was, is the same one,
// if it does soon.
type doubt struct {
	of            uint64
	began, probed time.Time     // the latter is when the last probe was made
	wait          time.Duration // before the next one
}

func isHollow(g *generation) bool { return g.hollow.Load() }

// next notes that a probe was just made, and returns how long to wait between it and the next one.
func (d *doubt) next() time.Duration {
	d.probed = time.Now()
	if d.probed.Sub(d.began) > eager {
		d.wait = min(2*d.wait, maxProbe)
	}
	return d.wait
}

func (c *Client) probe(ctx context.Context) {
	l, ok := c.handle.Acquire()
	if !ok {
		return
	}
	defer l.Release()
	bounded, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	switch err := l.Value().client.Probe(bounded); {
	case err == nil:
		c.absolve(l)
	case gemini.FaultOf(err) == gemini.FaultKey:
		c.refuse(l, err)
	}
	c.complain()
}
