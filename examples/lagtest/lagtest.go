// Package lagtest measures how long something takes on a machine that may be too busy to run it at once.
//
// A promise such as "within a second" is one about the program. What a busy machine adds isn't the program's, so a test that
// compares the promise with the time of day fails where nothing is wrong, and one with a generous bound holds nothing.
package lagtest

import (
	"sync"
	"testing"
	"time"
)

// beat is how often a Stopwatch wants to be woken.
const beat = 10 * time.Millisecond

// Stopwatch measures time without the part in which this machine didn't get to this process. Use Start.
type Stopwatch struct {
	mu   sync.Mutex
	last time.Time
	own  time.Duration
}

// Start starts a stopwatch, which runs until the test ends.
func Start(t testing.TB) *Stopwatch {
	s := &Stopwatch{last: time.Now()}
	stop := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		for {
			select {
			case <-time.After(beat):
				s.Took()
			case <-stop:
				return
			}
		}
	})
	t.Cleanup(func() { close(stop); running.Wait() })
	return s
}

// Took returns how much time has passed since Start. A pause in which the stopwatch wasn't woken, though it was due, counts as
// one beat: whatever else was due then had to wait as well. On a machine that isn't busy that is the time of day's.
func (s *Stopwatch) Took() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.own += counts(now.Sub(s.last))
	s.last = now
	return s.own
}

// counts returns how much of a gap between two looks at the clock is the program's own. A timer that is late by less than a
// beat is nothing unusual.
func counts(gap time.Duration) time.Duration {
	if gap > 2*beat {
		return beat
	}
	return gap
}
