package turn

import (
	"context"
	"errors"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// ErrNoFile is returned for a file that the loop doesn't render.
var ErrNoFile = errors.New("no such file is rendered here: see AGENT_SECRETS")

// ErrNotInForce is returned for an acknowledgement of a file that has been replaced since, or never was.
var ErrNotInForce = errors.New("the file is no longer the one that was rendered last")

// Outcome says what a refresh came to.
type Outcome string

// What a refresh comes to.
const (
	Published   Outcome = "published"   // the file is another than the caller's
	Unchanged   Outcome = "unchanged"   // the store holds nothing newer
	Held        Outcome = "held"        // the store has a newer value, and the gate holds it back
	Unreachable Outcome = "unreachable" // the store or this path can't be read, or the file not written
)

// Refresh reads file's path now, waits until the outcome is known, and returns it with the file's state. have names the
// file that the caller read; refused says that the caller saw its value refused, which the gate then checks itself.
//
// Concurrent calls share one read, and all callers together can't cause more than ten reads within any second. While the
// store as a whole fails it returns at once, and the next probe of the store comes as soon as it may. Otherwise it blocks
// for as long as the store, the gate and ctx let it; its errors are ErrNoFile and ctx's.
func (l *Loop) Refresh(ctx context.Context, name string, have secret.Identity, refused bool) (Outcome, FileStatus, error) {
	f := l.file(name)
	if f == nil {
		return "", FileStatus{}, ErrNoFile
	}
	if s := f.snapshot(l.store.failure()); s.Rendered && s.Identity != have {
		return Published, s, nil // the caller just hasn't read it yet
	}
	if refused {
		f.mu.Lock()
		f.claimed = true
		f.mu.Unlock()
		signal(f.hasten) // a held value needs less proof then, and no store
	}
	if l.store.failure() != nil {
		signal(l.store.hurry)
	} else if err := f.path.ask(ctx); err != nil {
		return "", FileStatus{}, err
	}
	s := f.snapshot(l.store.failure())
	switch {
	case s.Rendered && s.Identity != have:
		return Published, s, nil
	case !s.HeldSince.IsZero():
		return Held, s, nil
	case s.Kind != "":
		return Unreachable, s, nil
	}
	return Unchanged, s, nil
}

// Acknowledge notes that the value of the file named by id is in use, and has been since at. It returns ErrNoFile or
// ErrNotInForce, and then changes nothing. The same value may be acknowledged again, under the identity that a repair gave
// it: it stays in use since it first was. It blocks while the file is written: an app may have read it before it is noted here.
func (l *Loop) Acknowledge(name string, id secret.Identity, at time.Time) error {
	f := l.file(name)
	if f == nil {
		return ErrNoFile
	}
	f.rendering.Lock()
	defer f.rendering.Unlock()
	f.mu.Lock()
	defer f.mu.Unlock()
	s := &f.status
	if !s.Rendered || s.Identity != id {
		return ErrNotInForce
	}
	if f.inUse {
		s.InUse.Identity = id
		return nil
	}
	if now := time.Now(); at.After(now) {
		at = now
	}
	f.inUse = true
	s.Unproven = ""
	s.InUse = InUse{Version: s.Published, Identity: id, Since: at}
	if !s.Changed.IsZero() {
		s.InUse.Lag = max(0, at.Sub(s.Changed))
	}
	f.log.Info("in use", "version", s.Published.String(), "after", s.InUse.Lag.String())
	return nil
}

func (l *Loop) file(name string) *file {
	for _, f := range l.files {
		if f.File == name {
			return f
		}
	}
	return nil
}
