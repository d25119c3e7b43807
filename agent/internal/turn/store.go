package turn

import (
	"context"
	"log/slog"
	"maps"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

const (
	// readers bounds the reads that run at once, at the start and after an outage too.
	readers = 16
	// In an outage a probe begins a time between these two after the last one did: so seldom that the store gets two requests a
	// second at the most, since a probe may cost more than one; with enough spread that a fleet of agents doesn't arrive as one;
	// and so often that the end of the outage is found within 2 s.
	minProbe, maxProbe = time.Second, 1800 * time.Millisecond
	// sayAgain is how long after a reason was logged it may be news again, unless the store has answered for as long.
	sayAgain = time.Minute
)

// store stands between all paths and the source. It bounds the concurrent reads, and while the store as a whole fails it
// lets a single probe through: whoever failed first goes on trying, everybody else waits for that one.
type store struct {
	source source.Source
	log    *slog.Logger
	slots  chan struct{}
	hurry  chan struct{} // capacity one: somebody would like the outage to be over

	mu       sync.Mutex
	outage   *outage       // nil while the store answers
	failing  chan struct{} // closed when the next outage begins
	failures map[source.Kind]uint64
	said     map[string]time.Time // when each reason was logged last; "" stands for those beyond maxSaid
	ended    time.Time            // when the last outage did
}

type outage struct {
	since time.Time
	err   *source.Error
	probe time.Time // when the next one begins
	over  chan struct{}
	said  bool // it was logged
}

func newStore(s source.Source, log *slog.Logger) *store {
	return &store{
		source: s, log: log, slots: make(chan struct{}, readers), hurry: make(chan struct{}, 1), failing: make(chan struct{}),
		failures: map[source.Kind]uint64{}, said: map[string]time.Time{},
	}
}

// fetch reads path, waiting through an outage of the store. Its error is about this path alone, or ctx's.
func (s *store) fetch(ctx context.Context, path string) (*source.Record, error) {
	for {
		if err := s.enter(ctx); err != nil {
			return nil, err
		}
		began := time.Now()
		record, err := s.source.Fetch(ctx, path)
		down, first := s.down(err)
		<-s.slots // whoever gets it knows by then whether the store is down
		if !down {
			return record, err
		}
		if first {
			return s.probe(ctx, path, began)
		}
	}
}

// earlier reads a version of path before the newest. It doesn't wait through an outage, and counts no failure.
func (s *store) earlier(ctx context.Context, path string, number int) (*source.Record, error) {
	if failure := s.failure(); failure != nil {
		return nil, failure
	}
	select {
	case s.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.slots }()
	return s.source.(source.Historian).FetchVersion(ctx, path, number)
}

// enter takes a slot while the store is up. Those who queued for one when an outage began don't follow each other into it.
func (s *store) enter(ctx context.Context) error {
	for {
		if err := s.waitUntilUp(ctx); err != nil {
			return err
		}
		select {
		case s.slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
		if s.failure() == nil {
			return nil
		}
		<-s.slots
	}
}

func (s *store) waitUntilUp(ctx context.Context) error {
	for {
		s.mu.Lock()
		outage := s.outage
		s.mu.Unlock()
		if outage == nil {
			return ctx.Err()
		}
		select {
		case <-outage.over:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// probe retries path until the answer is no longer about the store, and so ends the outage for all. The last attempt began at
// last.
func (s *store) probe(ctx context.Context, path string, last time.Time) (*source.Record, error) {
	for {
		least, most := s.untilProbe(last)
		pause(ctx, least, nil)
		pause(ctx, most-least, s.hurry)
		if ctx.Err() != nil {
			s.up(ctx.Err())
			return nil, ctx.Err()
		}
		last = time.Now()
		record, err := s.source.Fetch(ctx, path)
		if down, _ := s.down(err); !down {
			s.up(ctx.Err())
			return record, err
		}
	}
}

// untilProbe returns the wait before the next probe, the last of which began at last: at most until a random moment between
// minProbe and maxProbe, at least until minProbe for when somebody asks for a refresh meanwhile, and neither before the store
// allows it.
func (s *store) untilProbe(last time.Time) (least, most time.Duration) {
	spread := rand.N(maxProbe - minProbe)
	s.mu.Lock()
	defer s.mu.Unlock()
	least = max(minProbe-time.Since(last), s.outage.err.RetryAfter, 0)
	most = max(minProbe+spread-time.Since(last), least)
	s.outage.probe = time.Now().Add(most)
	return least, most
}

// down counts err, and reports whether it says that the store as a whole fails, and whether this is the first to find out.
func (s *store) down(err error) (down, first bool) {
	e, ok := asSourceError(err)
	if !ok {
		return false, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failures[e.Kind]++
	if !e.Kind.StoreWide() {
		return false, false
	}
	first = s.outage == nil
	if first {
		if time.Since(s.ended) >= sayAgain {
			clear(s.said)
		}
		s.outage = &outage{since: time.Now(), err: e, over: make(chan struct{})}
		close(s.failing)
	}
	if s.isNews(e) {
		s.outage.said = true
		s.log.Warn("the store fails; what was rendered stays in force", "kind", e.Kind, "reason", e.Reason)
	}
	s.outage.err = e
	return true, first
}

// isNews reports whether it is worth a line that the outage is about e, and notes that it is said. A reason that differs
// between attempts, such as the address of the node that was tried, is not news each time; nor is a kind, where one of two
// nodes is sealed and the other away; nor an outage, where the other answers. The caller holds mu.
func (s *store) isNews(e *source.Error) bool {
	now := time.Now()
	reason := e.Reason
	if _, known := s.said[reason]; !known && len(s.said) >= maxSaid {
		reason = ""
	}
	last, said := s.said[reason]
	if said && (now.Sub(last) < sayAgain || s.outage.said && e.Kind == s.outage.err.Kind) {
		return false
	}
	s.said[reason] = now
	return true
}

// up ends the outage. An agent that is stopping says nothing of it, nor is it news where its beginning wasn't.
func (s *store) up(stopping error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if stopping == nil && s.outage.said {
		s.log.Info("the store answers again", "after", time.Since(s.outage.since).Round(time.Millisecond).String())
	}
	close(s.outage.over)
	s.outage, s.failing, s.ended = nil, make(chan struct{}), time.Now()
}

// fails returns a channel that is closed while the store fails.
func (s *store) fails() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failing
}

// failure returns what the store fails with at present, or nil.
func (s *store) failure() *source.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outage == nil {
		return nil
	}
	return s.outage.err
}

// state returns what Status tells of the store: what it fails with, when it is probed next, and the failures so far.
func (s *store) state() (failure *source.Error, probe time.Time, failures map[source.Kind]uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.outage != nil {
		failure, probe = s.outage.err, s.outage.probe
	}
	return failure, probe, maps.Clone(s.failures)
}
