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
	for {
		number, ok := c.await(ctx, isRefused)
		if !ok {
			return
		}
		c.refresh(ctx, number)
		for wait := minRefresh; c.lasts(ctx, wait, number, isRefused); wait = min(2*wait, maxRefresh) {
			c.refresh(ctx, number)
		}
	}
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
	for {
		number, ok := c.await(ctx, inDoubt)
		if !ok {
			return
		}
		if c.holds(number, isRefused) && !c.lasts(ctx, minProbe, number, inDoubt) { // it was refused a moment ago
			continue
		}
		c.probe(ctx)
		began, wait := time.Now(), minProbe
		for c.lasts(ctx, wait, number, inDoubt) {
			c.probe(ctx)
			if time.Since(began) >= eager {
				wait = min(2*wait, maxProbe)
			}
		}
	}
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
}
