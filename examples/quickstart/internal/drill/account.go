package drill

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/examples/internal/load"
)

// uses knows when each generation first had a success. It is safe for concurrent use.
type uses struct {
	mu      sync.Mutex
	at      map[uint64]time.Time
	newest  uint64
	changed chan struct{} // closed, and made anew, when newest grows
}

func newUses() uses { return uses{at: map[uint64]time.Time{}, changed: make(chan struct{})} }

// note notes a success, which is an answer that has come to its end.
func (u *uses) note(generation uint64, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if known, ok := u.at[generation]; !ok || at.Before(known) {
		u.at[generation] = at
	}
	if generation > u.newest {
		u.newest = generation
		close(u.changed)
		u.changed = make(chan struct{})
	}
}

// first returns when the generation first had a success; false if it had none.
func (u *uses) first(generation uint64) (time.Time, bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	at, ok := u.at[generation]
	return at, ok
}

// await waits until this generation or a later one has had a success, and returns which. Its error is ctx's.
func (u *uses) await(ctx context.Context, generation uint64) (uint64, error) {
	for {
		u.mu.Lock()
		newest, changed := u.newest, u.changed
		u.mu.Unlock()
		if newest >= generation {
			return newest, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// refusals counts how often a key was refused on the way of each request, as the stand-in saw it. It is safe for
// concurrent use; the zero refusals is ready.
type refusals struct {
	mu   sync.Mutex
	byID map[int]int
}

func (r *refusals) note(q geminitest.Request) {
	var id int
	if q.Refused == "" {
		return
	}
	if _, err := fmt.Sscanf(q.Prompt, promptFormat, &id); err != nil {
		return // a probe
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.byID == nil {
		r.byID = map[int]int{}
	}
	r.byID[id]++
}

func (r *refusals) of(id int) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.byID[id]
}

// tally counts outcomes while they come in. It is safe for concurrent use; the zero tally is ready.
type tally struct {
	mu                        sync.Mutex
	answered, failed, rescued int
	generation                uint64       // of the newest answer
	upTo                      int          // the outcome of every request before this one is known
	beyond                    map[int]bool // those after it whose outcome is known
}

func (t *tally) count(r load.Record, refused bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.beyond == nil {
		t.beyond = map[int]bool{}
	}
	t.beyond[r.ID] = true
	for t.beyond[t.upTo] {
		delete(t.beyond, t.upTo)
		t.upTo++
	}
	switch {
	case !r.OK():
		t.failed++
		return
	case refused:
		t.rescued++
	}
	t.answered++
	t.generation = max(t.generation, r.Generation)
}

// settled reports whether the outcome of every request before id is known.
func (t *tally) settled(id int) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.upTo >= id
}
