package turn

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// held is a value that the gate doesn't let through at present.
type held struct {
	value    secret.Value // a copy of our own
	version  secret.Version
	since    time.Time
	eager    time.Time     // until when it is judged often
	wait     time.Duration // between two calls of the gate
	next     time.Time     // when to judge it again; zero: only when the store says something new
	earliest time.Time     // when the gate lets itself be asked again
	searched time.Time     // when an earlier version was last looked for
}

const (
	// A held value costs a call every minRejudge for as long as eagerness lasts, since a fresh key takes a while to be known
	// everywhere; then at doubling intervals up to maxRejudge.
	minRejudge, maxRejudge = 250 * time.Millisecond, 15 * time.Second
	eagerness              = 10 * time.Second
)

// schedule says when to judge the value again after verdict.
func (h *held) schedule(verdict Verdict) {
	now := time.Now()
	h.next, h.earliest = time.Time{}, time.Time{}
	if !verdict.Retry {
		return
	}
	if now.Before(h.eager) {
		h.wait = minRejudge
	} else {
		h.wait = min(2*h.wait, maxRejudge)
	}
	h.earliest = now.Add(verdict.RetryAfter)
	h.next = now.Add(max(min(h.wait*time.Duration(max(1, verdict.Calls)), maxRejudge), verdict.RetryAfter))
}

// hold remembers value, says why, and has it judged again in time if that can help.
func (f *file) hold(ctx context.Context, value secret.Value, version secret.Version, verdict Verdict) {
	if f.held == nil || !f.held.value.Equal(value) {
		f.drop()
		now := time.Now()
		f.held = &held{value: secret.New(value.Reveal()), since: now, eager: now.Add(eagerness), wait: minRejudge}
	}
	f.held.schedule(verdict)
	f.mu.Lock()
	f.status.HeldSince, f.status.HeldReason, f.status.HeldNext = f.held.since, verdict.Held, f.held.next
	f.mu.Unlock()
	f.holdAs(version)
	f.trouble(judging, problem{KindHeld, verdict.Held})
	f.withdraw(value)
	switch {
	case f.held.next.IsZero():
	case !f.proving:
		f.proving = true
		f.path.loop.work.Go(func() { f.prove(ctx) })
	default:
		signal(f.hasten) // it may wait for a value before this one
	}
}

// holdAs notes under which version the store has the held value.
func (f *file) holdAs(version secret.Version) {
	f.held.version = version
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Held = version
}

// release forgets the held value, and that it was one.
func (f *file) release() {
	if f.held == nil {
		return
	}
	f.drop()
	f.mu.Lock()
	f.status.Held, f.status.HeldSince, f.status.HeldReason, f.status.HeldNext = secret.Version{}, time.Time{}, "", time.Time{}
	f.mu.Unlock()
	f.trouble(judging, problem{})
}

func (f *file) drop() {
	if f.held != nil {
		f.held.value.Clear()
		f.held = nil
	}
}

// prove judges the held value again and again, until there is none or nothing but the store can help it. However often it is
// hastened, it looks once in minRejudge.
func (f *file) prove(ctx context.Context) {
	for ctx.Err() == nil {
		next := f.proveOnce(ctx)
		if next.IsZero() {
			return
		}
		pause(ctx, minRejudge, nil)
		pause(ctx, time.Until(next), f.hasten)
	}
}

// proveOnce returns when to come again; zero if there is no need to, and then the next hold starts another goroutine.
func (f *file) proveOnce(ctx context.Context) (next time.Time) {
	f.turning.Lock()
	defer f.turning.Unlock()
	if f.held != nil {
		f.reconsider(ctx)
	}
	if f.held == nil || f.held.next.IsZero() {
		f.proving = false
		return time.Time{}
	}
	return f.held.next
}

// reconsider judges the held value again if it is time, or if the value in force has just been found to be refused: from
// then on less proof will do. There is a held value; afterwards there may be none.
func (f *file) reconsider(ctx context.Context) {
	now := time.Now()
	if f.checkInForce(ctx) {
		f.held.eager = now.Add(eagerness)
		if !f.held.next.IsZero() {
			f.held.next = f.held.earliest
			signal(f.hasten)
		}
	}
	if f.held.next.IsZero() || now.Before(f.held.next) {
		return
	}
	value := secret.New(f.held.value.Reveal())
	defer value.Clear()
	f.judge(ctx, value, f.held.version)
}
