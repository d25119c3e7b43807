package drill

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// Weather is what surrounds a rotation.
type Weather string

// The weathers.
const (
	// Overlap: the old key lives on.
	Overlap Weather = "overlap"
	// Revoked: Gemini knows the new key before Vault does, and the old one is revoked in the instant in which Vault's answer
	// to the write arrives. Streams that run already go on.
	Revoked Weather = "revoked"
	// Delayed: the new key is refused for the time Config.Delay; every other one by half of the front ends only. The old key
	// lives until the new one is in use, and is revoked then.
	Delayed Weather = "delayed"
	// Outage: Vault is gone in the instant in which its answer to the write has arrived, and back after Config.Outage. Every
	// other time it doesn't hang, but answers that it is sealed. The old key lives until the new one is in use.
	Outage Weather = "outage"
)

// Weathers returns all weathers, calmest first.
func Weathers() []Weather { return []Weather{Overlap, Delayed, Outage, Revoked} }

// rotation is one key that replaced another.
type rotation struct {
	generation uint64
	written    time.Time // Vault's answer arrived
	possible   time.Time // from when the new key could be used
}

// rotate replaces the current key in Vault and returns once the new one, which is to be this generation, is in use.
func (r *run) rotate(ctx context.Context, n int, generation uint64) error {
	old, key := r.keys.turn()
	rotation := rotation{generation: generation}
	switch {
	case r.Weather != Delayed:
		r.keys.accept(key)
	case n%2 == 0:
		rotation.possible = r.keys.acceptAfter(key, r.Delay)
	default:
		rotation.possible = r.keys.acceptHalf(key, r.Delay)
	}
	if err := r.stage.Vault.Write(ctx, key); err != nil {
		return fmt.Errorf("write the key to Vault: %w", err)
	}
	rotation.written = time.Now()
	if r.Weather == Revoked {
		r.keys.revoke(old)
	}
	r.tell(Moment{Kind: Written, Rotation: n + 1})
	if r.Weather == Outage {
		if err := r.takeVaultAway(ctx, n%2 == 1); err != nil {
			return err
		}
		rotation.possible = time.Now()
	}
	if rotation.possible.Before(rotation.written) {
		rotation.possible = rotation.written
	}
	r.rotations = append(r.rotations, rotation)
	if _, err := r.firstUse(ctx, generation); err != nil {
		return err
	}
	if r.Weather == Delayed || r.Weather == Outage {
		r.keys.revoke(old)
	}
	used, _ := r.uses.first(generation)
	r.tell(Moment{Kind: InUse, Rotation: n + 1, Generation: generation, Swap: max(0, used.Sub(rotation.possible))})
	return nil
}

// takeVaultAway makes Vault hang, or seals it, for a while.
func (r *run) takeVaultAway(ctx context.Context, seal bool) (err error) {
	vault := r.stage.Vault
	away, back := func(context.Context) error { return vault.Pause() }, func(context.Context) error { return vault.Resume() }
	if seal {
		away, back = vault.Seal, vault.Unseal
	}
	if err := away(ctx); err != nil {
		return fmt.Errorf("take Vault away: %w", err)
	}
	err = r.sleep(ctx, r.Outage)
	if backErr := back(ctx); backErr != nil {
		err = errors.Join(err, fmt.Errorf("bring Vault back: %w", backErr))
	}
	return err
}

// jitter spreads d by 10 % either way, so that rotations don't fall into step with the requests.
func jitter(d time.Duration) time.Duration {
	return d + time.Duration((rand.Float64()*0.2-0.1)*float64(d))
}
