package turn

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// file is one rendered file: what is in force, and what keeps a newer value from it.
type file struct {
	Secret
	path *path
	sink Sink
	gate Gate
	log  *slog.Logger

	turning sync.Mutex   // held while the file may be changed, across the gate's and the sink's work
	value   secret.Value // in force; zero before the first. Guarded by turning, as is the rest down to mu.
	held    *held        // the newest value, while the gate holds it
	refused secret.Value // the last value that the gate refused

	mu      sync.Mutex // guards the rest; never held across work
	status  FileStatus
	problem problem
	claimed bool // somebody says that the value in force is refused
}

// problem is why a file waits or is stale. It changes when its kind or reason does.
type problem struct {
	kind   source.Kind
	reason string
}

// Kinds of problems that no store has.
const (
	// KindHeld: the gate refuses the store's newest value.
	KindHeld source.Kind = "held"
	// KindRender: the sink can't write.
	KindRender source.Kind = "render"
)

func newFile(s Secret, p *path, c Config) *file {
	f := &file{Secret: s, path: p, sink: c.Sink, gate: c.Gate, log: c.Log.With("file", s.File)}
	f.status = FileStatus{File: s.File, Ref: s.Ref}
	value, id, err := c.Sink.Adopt(s.File)
	switch {
	case err == nil:
		f.value, f.status.Rendered, f.status.Identity = value, true, id
		f.log.Info("took over the file that stood there")
	case !errors.Is(err, fs.ErrNotExist):
		f.log.Warn("will replace the file that stands there", "reason", err.Error())
	}
	return f
}

// take brings the file in step with what the store holds.
func (f *file) take(ctx context.Context, record *source.Record) {
	f.turning.Lock()
	defer f.turning.Unlock()
	if !f.seen(record.Version) { // a standby that lags behind
		f.keep()
		return
	}
	value, err := record.Value(f.Ref.Field)
	if err != nil {
		f.release()
		f.fail(err)
		f.keep()
		return
	}
	if value.Equal(f.value) {
		f.release()
		f.checkClaim(ctx)
		f.publish(value, record.Version, "")
		return
	}
	f.judge(ctx, value, record.Version)
}

// seen notes what the store answered, and reports whether it is news: not older than what is in force.
func (f *file) seen(v secret.Version) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Read = time.Now()
	if v.Before(f.status.Stored) {
		return false
	}
	f.status.Stored = v
	return true
}

// publish renders value, which the sink skips if the file holds it already.
func (f *file) publish(value secret.Value, version secret.Version, unproven string) {
	id, written, err := f.sink.Render(f.File, value)
	if err != nil {
		f.trouble(problem{KindRender, err.Error()})
		return
	}
	changed := !value.Equal(f.value)
	if changed { // the record that value came from is cleared after this turn
		f.value.Clear()
		f.value = secret.New(value.Reveal())
	}
	f.notePublished(id, version, changed, written, unproven)
	switch {
	case changed && unproven != "":
		f.log.Warn("published without proof", "version", version.String(), "reason", unproven)
	case changed:
		f.log.Info("published", "version", version.String())
	case written:
		f.log.Warn("repaired: the file didn't hold what was rendered", "version", version.String())
	}
	f.trouble(problem{})
}

func (f *file) notePublished(id secret.Identity, version secret.Version, changed, written bool, unproven string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !written && f.status.InUse.Identity == f.status.Identity {
		f.status.InUse.Version = version // equal bytes under a new version: what is in use moves along
	}
	f.status.Rendered, f.status.Identity, f.status.Published = true, id, version
	if written {
		f.status.Renders++
	}
	if changed {
		f.status.Changed, f.status.Unproven = time.Now(), unproven
		f.status.Refused, f.claimed = false, false
	}
}

// keep renders again what is in force, should the file no longer hold it.
func (f *file) keep() {
	if f.value.IsZero() {
		return
	}
	id, written, err := f.sink.Render(f.File, f.value)
	if err != nil {
		f.trouble(problem{KindRender, err.Error()})
		return
	}
	if !written {
		return
	}
	f.mu.Lock()
	f.status.Identity = id
	f.status.Renders++
	f.mu.Unlock()
	f.log.Warn("repaired: the file didn't hold what was rendered")
}

// repair is keep, for callers that don't turn the file.
func (f *file) repair() {
	f.turning.Lock()
	defer f.turning.Unlock()
	f.keep()
}

func (f *file) fail(err error) {
	p := problem{kindOf(err), err.Error()}
	if e, ok := asSourceError(err); ok {
		p.reason = e.Reason
	}
	f.trouble(p)
}

// trouble notes what is wrong, or with a zero problem that nothing is, and logs the change.
func (f *file) trouble(p problem) {
	f.mu.Lock()
	before := f.problem
	f.problem = p
	rendered := f.status.Rendered
	f.mu.Unlock()
	switch {
	case p == before:
	case p == problem{}:
		f.log.Info("in step with the store again")
	case rendered:
		f.log.Warn("the last good value stays in force", "kind", p.kind, "reason", p.reason)
	default:
		f.log.Warn("not rendered yet", "kind", p.kind, "reason", p.reason)
	}
}

func (f *file) expectNext(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Next = t
}

func asSourceError(err error) (*source.Error, bool) { return errors.AsType[*source.Error](err) }
