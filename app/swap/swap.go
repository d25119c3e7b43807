// Package swap replaces a value while others use it.
//
// A [Handle] publishes successive generations of a value. Whoever uses one leases it, and a generation is retired once it
// is no longer leasable and its last lease has been given back: nobody ever holds a value that has been retired.
//
//	h := swap.New(func(c *Client) { c.Close() })
//	h.Publish(first)
//
//	lease, ok := h.Acquire()
//	defer lease.Release()
//	lease.Value().Do(...)
//
// The generation before the current one, the predecessor, stays leasable until it is dropped or another one takes its
// place, so that there is something to fall back on while the current one proves itself.
//
// # Decisions
//
// A lease is counted with two atomic additions, so it costs the same whoever else leases. Rejected: a read-write lock, which
// a waiting writer turns into a queue; counters a processor, which make the moment of retirement hard to see and save
// nothing against what a lease is taken for.
package swap

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
)

// Handle publishes successive generations of a T. Use New. Its methods are safe for concurrent use, and only Close blocks.
type Handle[T any] struct {
	retire  func(T)
	current atomic.Pointer[generation[T]]

	mu          sync.Mutex // guards the rest; never held while retire runs
	predecessor *generation[T]
	last        uint64
	next        chan struct{} // closed by the next Publish or Close
	draining    int
	closed      bool
	drained     chan struct{} // closed once closed is set and draining is 0
}

// generation is one published value. users counts the leases, and one more while the handle itself holds the generation;
// who brings it to 0 retires the value and leaves it far below 0.
type generation[T any] struct {
	value  T
	number uint64
	users  atomic.Int64
}

// retired is what users is about from its end on: no number of late visitors brings it back above 0.
const retired = math.MinInt64 / 2

// New returns a handle without a value. retire is called once for each published value when nobody uses it any more, in
// the goroutine that ended its last use; it may be nil.
func New[T any](retire func(T)) *Handle[T] {
	if retire == nil {
		retire = func(T) {}
	}
	return &Handle[T]{retire: retire, next: make(chan struct{}), drained: make(chan struct{})}
}

// Publish makes v current and returns its generation: 1 for the first value, then always one more. The one that was
// current becomes the predecessor, and the predecessor of that is dropped. On a closed handle v is retired at once, and
// Publish returns 0.
func (h *Handle[T]) Publish(v T) uint64 { return h.publish(v, true) }

// Replace is Publish for when the current value is no good: that one is dropped, and its predecessor stays.
func (h *Handle[T]) Replace(v T) uint64 { return h.publish(v, false) }

func (h *Handle[T]) publish(v T, keep bool) uint64 {
	g := &generation[T]{value: v}
	g.users.Store(1)
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		h.retire(v)
		return 0
	}
	h.last++
	g.number = h.last
	out := h.current.Swap(g)
	if keep {
		out, h.predecessor = h.predecessor, out
	}
	close(h.next)
	h.next = make(chan struct{})
	h.drain(out)
	h.mu.Unlock()
	h.release(out)
	return g.number
}

// Drop ends the predecessor, if it is that generation: those who lease it may go on, and nobody leases it any more.
func (h *Handle[T]) Drop(generation uint64) {
	h.mu.Lock()
	out := h.predecessor
	if out == nil || out.number != generation {
		h.mu.Unlock()
		return
	}
	h.predecessor = nil
	h.drain(out)
	h.mu.Unlock()
	h.release(out)
}

// drain counts a generation that is no longer leasable. The caller holds mu, and calls release without it.
func (h *Handle[T]) drain(g *generation[T]) {
	if g != nil {
		h.draining++
	}
}

// Lease is the use of one generation. It is a small value: copy it, and release it once. The zero Lease holds nothing.
type Lease[T any] struct {
	handle *Handle[T]
	of     *generation[T]
}

// Value returns what was leased. It may be used until Release.
func (l Lease[T]) Value() T { return l.of.value }

// Generation returns the number that Publish returned.
func (l Lease[T]) Generation() uint64 { return l.of.number }

// Release gives the lease back. Releasing twice takes away somebody else's lease.
func (l Lease[T]) Release() { l.handle.release(l.of) }

// Acquire leases the current generation; false if there is none. It allocates nothing.
func (h *Handle[T]) Acquire() (Lease[T], bool) {
	for {
		g := h.current.Load()
		if g == nil {
			return Lease[T]{}, false
		}
		if g.users.Add(1) > 0 {
			return Lease[T]{h, g}, true
		}
		g.users.Add(-1) // it was retired in between, so another one is current
	}
}

// AcquirePredecessor leases the generation before the current one; false if there is none any more.
func (h *Handle[T]) AcquirePredecessor() (Lease[T], bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.predecessor == nil {
		return Lease[T]{}, false
	}
	h.predecessor.users.Add(1) // above 0, since the handle holds it
	return Lease[T]{h, h.predecessor}, true
}

// release ends one use of g, which may be nil.
func (h *Handle[T]) release(g *generation[T]) {
	if g == nil || g.users.Add(-1) != 0 || !g.users.CompareAndSwap(0, retired) {
		return // or somebody came in just now, who will find the same
	}
	h.retire(g.value)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining--; h.closed && h.draining == 0 {
		close(h.drained)
	}
}

// After returns a channel that is closed once a generation after that one is current, at once if it is; or once the handle
// is closed. generation is one that Publish returned, or 0.
func (h *Handle[T]) After(generation uint64) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed || h.last > generation {
		done := make(chan struct{})
		close(done)
		return done
	}
	return h.next
}

// Draining returns how many generations can't be leased any more and are still in use.
func (h *Handle[T]) Draining() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.draining
}

// Close makes nothing leasable any more, and returns when all is retired or ctx ends, with ctx's error then. It may be
// called again.
func (h *Handle[T]) Close(ctx context.Context) error {
	current, predecessor := h.shut()
	h.release(current)
	h.release(predecessor)
	select {
	case <-h.drained:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// shut closes the handle and returns what it held.
func (h *Handle[T]) shut() (current, predecessor *generation[T]) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, nil
	}
	h.closed = true
	close(h.next)
	current, predecessor = h.current.Swap(nil), h.predecessor
	h.predecessor = nil
	h.drain(current)
	h.drain(predecessor)
	if h.draining == 0 {
		close(h.drained)
	}
	return current, predecessor
}
