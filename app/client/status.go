package client

import (
	"sync/atomic"
	"time"
)

// Status is a Client's state at one moment. It says nothing of any key.
type Status struct {
	// Ready says that requests may be sent: there is a key, and no request has failed for want of one since a key was
	// accepted last.
	Ready bool
	// Reason says why it isn't ready or, once it is, why the file's key is not taken; empty if all is well.
	Reason string
	// Generation is the current one, 0 before the first, and SwappedAt when it became that.
	Generation uint64
	SwappedAt  time.Time
	// Draining is how many generations that are no longer leased out are still in use.
	Draining int
	// Predecessor is the generation that can still stand in for the current one; 0 if there is none.
	Predecessor uint64
	// CurrentRefused says that Gemini refused the current key, and that nothing else is known since.
	CurrentRefused bool

	// Calls counts the requests since the start; Refused the runs of one that ended in a refusal of the key; Rescued the
	// requests that were answered all the same; Waited those that waited for a key.
	Calls, Refused, Rescued, Waited uint64
	// Refreshes counts how often the agent was asked for a better key, Acknowledged how often it was told what is in use.
	Refreshes, Acknowledged uint64
}

type counters struct {
	calls, refused, rescued, waited, refreshes, acknowledged atomic.Uint64
}

// Status returns the state as it is now, and never blocks.
func (c *Client) Status() Status {
	s := Status{
		Draining:     c.handle.Draining(),
		Calls:        c.counters.calls.Load(),
		Refused:      c.counters.refused.Load(),
		Rescued:      c.counters.rescued.Load(),
		Waited:       c.counters.waited.Load(),
		Refreshes:    c.counters.refreshes.Load(),
		Acknowledged: c.counters.acknowledged.Load(),
	}
	if l, ok := c.handle.Acquire(); ok {
		s.Generation, s.SwappedAt, s.CurrentRefused = l.Generation(), l.Value().since, l.Value().refused.Load()
		l.Release()
	}
	if l, ok := c.handle.AcquirePredecessor(); ok {
		if !l.Value().refused.Load() {
			s.Predecessor = l.Generation()
		}
		l.Release()
	}
	s.Ready = s.Generation > 0 && c.gaveUp.Load() == nil
	s.Reason = c.reason(s)
	return s
}

func (c *Client) reason(s Status) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case s.Generation > 0 && !s.Ready && s.CurrentRefused:
		return ErrRefused.Error()
	case s.Generation > 0 && !s.Ready:
		return "the key has not been accepted by Gemini yet"
	case c.problem != "":
		return c.problem
	case s.Generation == 0:
		return ErrNoKey.Error()
	}
	return ""
}

// complaint is what the log says of failing requests: open from its line on until the line that it is over.
type complaint struct {
	open       bool
	generation uint64
	at         time.Time
}

// complain logs that requests fail, if they do and the log doesn't say so. Within quiet it says nothing of the same generation
// again, since the state may not last: whoever probes the key calls complain until it is over.
func (c *Client) complain() {
	c.mu.Lock()
	given, said, now := c.gaveUp.Load(), &c.complaint, time.Now()
	due := given != nil && !said.open && (said.generation != *given || now.Sub(said.at) >= quiet)
	if due {
		*said = complaint{true, *given, now}
	}
	c.mu.Unlock()
	if due {
		c.config.Log.Error("no key works: requests fail until one does", "generation", *given)
	}
}

// settle notes that requests needn't fail any more, and reports whether the log says that they do.
func (c *Client) settle() (said bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gaveUp.Store(nil)
	said, c.complaint.open = c.complaint.open, false
	return said
}
