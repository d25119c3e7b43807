package vault

import (
	"context"
	"errors"
	"sync"
)

// flights lets concurrent calls for the same key share one outcome. The zero value is ready.
//
// It differs from x/sync/singleflight in whose context counts: a caller that gives up leaves, and if it was the one who
// worked, another takes over.
type flights[K comparable, V any] struct {
	mu     sync.Mutex
	flying map[K]*flight[V]
}

type flight[V any] struct {
	landed chan struct{}
	value  V
	err    error
}

// do runs work in this goroutine, or waits for the caller that already does for the same key.
func (f *flights[K, V]) do(ctx context.Context, key K, work func() (V, error)) (V, error) {
	for {
		flight, mine := f.board(key)
		if mine {
			f.fly(key, flight, work)
			return flight.value, flight.err
		}
		select {
		case <-flight.landed:
		case <-ctx.Done():
			var none V
			return none, ctx.Err()
		}
		if !isContext(flight.err) {
			return flight.value, flight.err
		}
	}
}

func (f *flights[K, V]) board(key K) (_ *flight[V], mine bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if flight := f.flying[key]; flight != nil {
		return flight, false
	}
	if f.flying == nil {
		f.flying = map[K]*flight[V]{}
	}
	flight := &flight[V]{landed: make(chan struct{})}
	f.flying[key] = flight
	return flight, true
}

func (f *flights[K, V]) fly(key K, flight *flight[V], work func() (V, error)) {
	defer func() {
		f.mu.Lock()
		delete(f.flying, key)
		f.mu.Unlock()
		close(flight.landed)
	}()
	flight.value, flight.err = work()
}

func isContext(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}
