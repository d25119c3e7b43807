package turn

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// held is a value that the gate doesn't let through at present.
type held struct {
	value   secret.Value // a copy of our own
	version secret.Version
	since   time.Time
	next    time.Time // when to judge it again; zero: only when the store says something new
	wait    time.Duration
}

const (
	// A held value is judged again every minRejudge for as long as eager, since a fresh key takes a while to be known
	// everywhere; then at doubling intervals up to maxRejudge.
	minRejudge, maxRejudge = 250 * time.Millisecond, 15 * time.Second
	eager                  = 10 * time.Second
	// depth bounds how many versions the search for an earlier good one goes back.
	depth = 10
)

// judge publishes value if the gate lets it, and otherwise holds it.
func (f *file) judge(ctx context.Context, value secret.Value, version secret.Version) {
	verdict := f.ask(ctx, value)
	if ctx.Err() != nil {
		return
	}
	if verdict.Held == "" {
		f.publish(value, version, verdict.Unproven)
		f.release()
		return
	}
	if verdict.Refused {
		f.refused.Clear()
		f.refused = secret.New(value.Reveal())
	}
	f.hold(value, version, verdict)
	f.keep()
	if f.value.IsZero() && verdict.Refused {
		f.publishEarlier(ctx, version)
	}
	f.trouble(problem{KindHeld, verdict.Held})
}

func (f *file) ask(ctx context.Context, value secret.Value) Verdict {
	f.mu.Lock()
	c := Candidate{
		File: f.File, Value: value, InForce: f.value,
		Claimed: f.claimed, Known: f.status.Refused,
		RefusedBefore: value.Equal(f.refused),
	}
	f.claimed = false
	f.mu.Unlock()
	verdict := f.gate.Judge(ctx, c)
	if verdict.InForceRefused {
		f.noteRefused()
	}
	return verdict
}

// hold remembers value and when to judge it again.
func (f *file) hold(value secret.Value, version secret.Version, verdict Verdict) {
	now := time.Now()
	if f.held == nil || !f.held.value.Equal(value) {
		f.release()
		f.held = &held{value: secret.New(value.Reveal()), version: version, since: now}
	}
	h := f.held
	h.version, h.next = version, time.Time{}
	if verdict.Retry {
		h.wait = min(max(h.wait, minRejudge), maxRejudge)
		if now.Sub(h.since) > eager {
			h.wait = min(2*h.wait, maxRejudge)
		}
		h.next = now.Add(max(min(h.wait*time.Duration(max(1, verdict.Calls)), maxRejudge), verdict.RetryAfter))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Held, f.status.HeldSince = version, h.since
}

// release forgets the held value.
func (f *file) release() {
	if f.held == nil {
		return
	}
	f.held.value.Clear()
	f.held = nil
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Held, f.status.HeldSince = secret.Version{}, time.Time{}
}

// rejudge judges the held value again if it is time, and returns when to call again; zero if no value waits for that.
func (f *file) rejudge(ctx context.Context) time.Time {
	f.turning.Lock()
	defer f.turning.Unlock()
	if f.held == nil || f.held.next.IsZero() {
		return time.Time{}
	}
	if time.Now().Before(f.held.next) {
		return f.held.next
	}
	value := secret.New(f.held.value.Reveal())
	defer value.Clear()
	f.judge(ctx, value, f.held.version)
	if f.held == nil {
		return time.Time{}
	}
	return f.held.next
}

// publishEarlier looks for the newest version before the refused one that the gate proves, so that a pod that starts
// in the middle of a rotation starts.
func (f *file) publishEarlier(ctx context.Context, refused secret.Version) {
	historian, ok := f.path.loop.config.Source.(source.Historian)
	if !ok {
		return
	}
	for n := refused.Number - 1; n >= max(1, refused.Number-depth) && ctx.Err() == nil; n-- {
		record, err := historian.FetchVersion(ctx, f.Ref.Path, n)
		if err != nil {
			continue
		}
		value, err := record.Value(f.Ref.Field)
		if err == nil {
			if verdict := f.ask(ctx, value); verdict.Held == "" && verdict.Unproven == "" && ctx.Err() == nil {
				f.publish(value, record.Version, "")
				record.Clear()
				return
			}
		}
		record.Clear()
	}
}

// checkClaim finds out whether the value in force is refused, if somebody says so and it isn't known.
func (f *file) checkClaim(ctx context.Context) {
	f.mu.Lock()
	claimed := f.claimed && !f.status.Refused
	f.claimed = false
	f.mu.Unlock()
	if claimed && f.gate.Refused(ctx, f.File, f.value) {
		f.noteRefused()
	}
}

func (f *file) noteRefused() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.status.Refused {
		f.status.Refused = true
		f.log.Warn("the value in force is refused; waiting for the store to hold another")
	}
}
