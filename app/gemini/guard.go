package gemini

import (
	"context"
	"errors"
	"iter"
)

// guarded is an engine whose SDK may panic, as both do on answers of an unforeseen shape: no answer may end the program.
// What an SDK panics with is dropped, since it may quote the answer.
type guarded struct{ engine }

// errPanicked is judged like any answer that an SDK can't read.
var errPanicked = errors.New("gemini: the SDK panicked")

func (g guarded) generate(ctx context.Context, prompt string) (p piece, err error) {
	defer func() {
		if recover() != nil {
			p, err = piece{}, errPanicked
		}
	}()
	return g.engine.generate(ctx, prompt)
}

// stream lets a panic of whoever takes the pieces pass.
func (g guarded) stream(ctx context.Context, prompt string) iter.Seq2[piece, error] {
	return func(yield func(piece, error) bool) {
		inSDK, more := true, true
		defer func() {
			if inSDK && recover() != nil && more {
				yield(piece{}, errPanicked)
			}
		}()
		for p, err := range g.engine.stream(ctx, prompt) {
			inSDK = false
			more = yield(p, err)
			inSDK = true
			if !more {
				return
			}
		}
	}
}
