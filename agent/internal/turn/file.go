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
	sink Sink
	gate Gate
	log  *slog.Logger

	turning sync.Mutex // held while the file may be changed, across the gate's and the sink's work

	mu      sync.Mutex // guards the rest
	value   secret.Value
	status  FileStatus
	problem problem
}

// problem is why a file waits or is stale. It changes when its kind or reason does.
type problem struct {
	kind   source.Kind
	reason string
}

// kinds of problems that no store has.
const (
	kindHeld   source.Kind = "held"   // the gate refuses the store's newest value
	kindRender source.Kind = "render" // the sink can't write
)

func newFile(s Secret, c Config) *file {
	f := &file{Secret: s, sink: c.Sink, gate: c.Gate, log: c.Log.With("file", s.File)}
	f.status = FileStatus{File: s.File, Ref: s.Ref}
	value, id, err := c.Sink.Adopt(s.File)
	switch {
	case err == nil:
		f.value, f.status.Rendered, f.status.Identity = value, true, id
		f.log.Info("took over the file that stood there", "until", "the store was read")
	case !errors.Is(err, fs.ErrNotExist):
		f.log.Warn("will replace the file that stands there", "reason", err.Error())
	}
	return f
}

// take brings the file in step with what the store holds.
func (f *file) take(ctx context.Context, record *source.Record) {
	f.turning.Lock()
	defer f.turning.Unlock()
	f.mu.Lock()
	f.status.Read = time.Now()
	stale := record.Version.Before(f.status.Published)
	f.mu.Unlock()
	if stale { // a standby that lags behind
		f.keep()
		return
	}
	f.seen(record.Version)
	value, err := record.Value(f.Ref.Field)
	if err != nil {
		f.fail(err)
		f.keep()
		return
	}
	if value.Equal(f.inForce()) {
		f.publish(value, record.Version)
		return
	}
	verdict := f.gate.Judge(ctx, f.File, value, f.inForce())
	if ctx.Err() != nil {
		return
	}
	if verdict.Held != "" {
		f.trouble(problem{kindHeld, verdict.Held})
		f.keep()
		return
	}
	f.publish(value, record.Version)
}

// publish renders value, which the sink skips if the file holds it already.
func (f *file) publish(value secret.Value, version secret.Version) {
	id, written, err := f.sink.Render(f.File, value)
	if err != nil {
		f.trouble(problem{kindRender, err.Error()})
		return
	}
	f.mu.Lock()
	changed := !value.Equal(f.value)
	if changed { // the record that value came from is cleared after this turn
		f.value.Clear()
		f.value = secret.New(value.Reveal())
	}
	f.status.Rendered, f.status.Identity = true, id
	if !version.IsZero() {
		f.status.Published = version
	}
	if written {
		f.status.Renders++
	}
	if changed {
		f.status.Changed = time.Now()
	}
	f.mu.Unlock()
	switch {
	case changed:
		f.log.Info("published", "version", version.String())
	case written:
		f.log.Warn("repaired: the file didn't hold what was rendered", "version", version.String())
	}
	f.trouble(problem{})
}

// keep renders again what is in force, should the file no longer hold it. It leaves a known problem as it is.
func (f *file) keep() {
	value := f.inForce()
	if value.IsZero() {
		return
	}
	id, written, err := f.sink.Render(f.File, value)
	if err != nil {
		f.trouble(problem{kindRender, err.Error()})
		return
	}
	if written {
		f.mu.Lock()
		f.status.Identity = id
		f.status.Renders++
		f.mu.Unlock()
		f.log.Warn("repaired: the file didn't hold what was rendered")
	}
}

// repair is keep, for callers that hold no lock.
func (f *file) repair() {
	f.turning.Lock()
	defer f.turning.Unlock()
	f.keep()
}

func (f *file) fail(err error) {
	p := problem{source.Unavailable, err.Error()}
	if e, ok := errors.AsType[*source.Error](err); ok {
		p = problem{e.Kind, e.Reason}
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

func (f *file) inForce() secret.Value {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.value
}

func (f *file) seen(v secret.Version) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Stored = v
}

func (f *file) expectNext(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Next = t
}
