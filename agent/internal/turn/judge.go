package turn

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// depth bounds how many versions the search for an earlier good one goes back.
const depth = 10

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
	f.hold(ctx, value, version, verdict)
	if f.value.IsZero() && verdict.Refused {
		f.publishEarlier(ctx, version)
	}
}

// ask has value judged, and remembers what was found out on the way.
func (f *file) ask(ctx context.Context, value secret.Value) Verdict {
	f.mu.Lock()
	c := Candidate{
		File: f.File, Value: value, InForce: f.value,
		Claimed: f.claimed, Known: f.status.Refused,
		RefusedBefore: f.refused.has(value),
	}
	f.claimed = false
	f.mu.Unlock()
	verdict := f.gate.Judge(ctx, c)
	switch {
	case verdict.Refused:
		f.refused.add(value)
	case verdict.Held == "":
		f.refused.remove(value)
	}
	if verdict.InForceRefused {
		f.noteInForce(true)
	}
	return verdict
}

// publishEarlier looks for the newest version before the refused one that the gate proves, so that a pod that starts
// in the middle of a rotation starts. A search that found none is repeated no more often than a held value is judged at last.
func (f *file) publishEarlier(ctx context.Context, refused secret.Version) {
	if _, ok := f.path.loop.config.Source.(source.Historian); !ok || time.Since(f.held.searched) < maxRejudge {
		return
	}
	f.held.searched = time.Now()
	for n := refused.Number - 1; n >= max(1, refused.Number-depth); n-- {
		record, err := f.path.loop.store.earlier(ctx, f.Ref.Path, n)
		if ctx.Err() != nil || err != nil && kindOf(err).StoreWide() {
			return
		}
		if err == nil && f.publishIfProven(ctx, record) {
			return
		}
	}
}

// publishIfProven publishes what record holds if the gate proves it, and reports whether it does. It clears the record.
func (f *file) publishIfProven(ctx context.Context, record *source.Record) (proven bool) {
	defer record.Clear()
	value, err := record.Value(f.Ref.Field)
	if err != nil {
		return false
	}
	verdict := f.ask(ctx, value)
	switch {
	case ctx.Err() != nil, verdict.Unproven != "":
		return false
	case verdict.Held != "":
		f.withdraw(value)
		return false
	}
	f.publishStandIn(value, record.Version, "")
	return true
}

// publishStandIn publishes value, and says so if it stands in for a newer one that the gate holds.
func (f *file) publishStandIn(value secret.Value, version secret.Version, unproven string) {
	if f.publish(value, version, unproven) && f.held != nil {
		f.log.Warn("the newest version is refused; an earlier one is in force", "version", version.String(), "newest", f.held.version.String())
	}
}

// checkInForce asks the gate about the value in force if somebody says that it is refused and, from time to time while it
// is, whether it still is. It reports whether it has just been found to be.
func (f *file) checkInForce(ctx context.Context) (found bool) {
	f.mu.Lock()
	claimed, known := f.claimed, f.status.Refused
	f.claimed = false
	f.mu.Unlock()
	if f.value.IsZero() || !claimed && !known || known && time.Since(f.checked) < maxRejudge {
		return false
	}
	refused, sure := f.gate.Refused(ctx, f.File, f.value)
	if ctx.Err() != nil || !sure {
		return false
	}
	f.noteInForce(refused)
	return refused && !known
}

// noteInForce notes what the gate said of the value in force.
func (f *file) noteInForce(refused bool) {
	f.checked = time.Now()
	f.mu.Lock()
	before := f.status.Refused
	f.status.Refused = refused
	f.mu.Unlock()
	switch {
	case refused && !before:
		f.refused.add(f.value)
		f.log.Warn("the value in force is refused; waiting for the store to hold another")
	case before && !refused:
		f.refused.remove(f.value)
		f.log.Info("the value in force is accepted again")
	}
}
