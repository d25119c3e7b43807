package turn

import (
	"sync"
	"time"
)

// maxAsked bounds the reads that callers of Refresh can cause within any second, all paths together.
const maxAsked = 10

// budget lets maxAsked reads begin within any second, the first of them at once: a token bucket would either make the
// second wait or let twice as many through. The zero budget is unspent. It is safe for concurrent use.
type budget struct {
	mu     sync.Mutex
	began  [maxAsked]time.Time // when the last reads began, as a ring
	oldest int
}

// take reports whether a read may begin now; if not, wait is how long to leave it before asking again.
func (b *budget) take() (wait time.Duration, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	if wait := time.Second - now.Sub(b.began[b.oldest]); wait > 0 {
		return wait, false
	}
	b.began[b.oldest] = now
	b.oldest = (b.oldest + 1) % maxAsked
	return 0, true
}
