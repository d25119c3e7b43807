package turn

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// maxKeep bounds the wait between two attempts to keep the access: a store may count failed logins, and lock out who makes
// too many.
const maxKeep = 15 * time.Second

// keep keeps the source's access alive until ctx ends. Its failures don't stop the reads, since the access may still hold,
// and are logged only once they come again while the store answers reads: what ails the store as a whole is said elsewhere.
func (s *store) keep(ctx context.Context, keeper source.Keeper) {
	const none = time.Duration(0)
	said, wait := map[string]bool{}, none
	for s.waitUntilUp(ctx) == nil {
		next, err := keeper.Keep(ctx)
		switch {
		case ctx.Err() != nil:
			return
		case err == nil && len(said) > 0:
			clear(said)
			s.log.Info("the access to the store is renewed")
			fallthrough
		case err == nil:
			wait = none
		default:
			if reason := err.Error(); wait != none && !said[reason] {
				said[reason] = true
				s.log.Warn("the access to the store can't be renewed", "reason", reason)
			}
			wait = min(max(2*wait, maxProbe), maxKeep)
			next = max(minProbe+rand.N(wait-minProbe), retryAfter(err))
		}
		pause(ctx, next, nil)
	}
}
