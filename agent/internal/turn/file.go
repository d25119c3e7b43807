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
	path   *path
	sink   Sink
	gate   Gate
	log    *slog.Logger
	hasten chan struct{} // capacity one: the held value is to be looked at now

	turning sync.Mutex   // held while another value may be published, across the gate's and the sink's work
	value   secret.Value // in force; zero before the first. Changed under turning and rendering, read under either.
	// Guarded by turning:
	held      *held      // the newest value, while the gate holds it
	proving   bool       // a goroutine judges held again
	checked   time.Time  // when the gate was last asked about value
	unwritten *unwritten // what was to be published, and the sink couldn't
	refused   refusals
	older     time.Time // since when the store answers with an older version than before; zero: it doesn't

	rendering sync.Mutex // held across the sink's work alone

	mu       sync.Mutex // guards the rest; never held across work
	status   FileStatus
	problems problems
	claimed  bool // somebody says that the value in force is refused
	inUse    bool // what was acknowledged last is the value in force
}

func newFile(s Secret, p *path, c Config) *file {
	f := &file{Secret: s, path: p, sink: c.Sink, gate: c.Gate, log: c.Log.With("file", s.File), hasten: make(chan struct{}, 1)}
	f.status = FileStatus{File: s.File, Ref: s.Ref}
	value, id, err := c.Sink.Adopt(s.File)
	switch {
	case err == nil:
		f.value, f.status.Rendered, f.status.Identity = p.loop.remember(value), true, id
		value.Clear()
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
	if !f.isNews(record.Version) {
		f.trouble(reading, problem{})
		return
	}
	value, err := record.Value(f.Ref.Field)
	if err != nil {
		f.trouble(finding, problemOf(err))
		f.trouble(reading, problem{})
		f.release()
		f.forgetUnwritten()
		return
	}
	f.trouble(finding, problem{})
	f.trouble(reading, problem{})
	switch {
	case value.Equal(f.value):
		f.release()
		f.checkInForce(ctx)
		f.publish(value, record.Version, "")
	case f.held != nil && value.Equal(f.held.value):
		f.holdAs(record.Version)
		f.reconsider(ctx)
	default:
		f.judge(ctx, value, record.Version)
	}
}

// lose notes that the path can't be read. A value that the store has no more isn't waited for, nor written.
func (f *file) lose(err error) {
	f.turning.Lock()
	defer f.turning.Unlock()
	p := problemOf(err)
	f.older = time.Time{}
	f.trouble(reading, p)
	if p.kind == source.NotFound {
		f.release()
		f.forgetUnwritten()
	}
}

// maxLag is how long a standby of the store may lag behind. A store that answers with an older version for longer was set
// back, or its clock was.
const maxLag = time.Minute

// isNews notes what the store answered, and reports whether it counts: an older version than before is most likely the answer
// of a standby that lags behind. With a value in force that is refused there is nothing to lose by trying it. The caller holds
// turning.
func (f *file) isNews(v secret.Version) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	f.status.Read = now
	if v.Before(f.status.Stored) {
		if f.older.IsZero() {
			f.older = now
		}
		switch {
		case now.Sub(f.older) >= maxLag:
			f.log.Warn("the store went back to a version that was made earlier; following it", "version", v.String(), "before", f.status.Stored.String())
		case !f.claimed && !f.status.Refused:
			return false
		}
	}
	f.older = time.Time{}
	f.status.Stored = v
	return true
}

// publish makes value the one in force, under the version that the store has it as, as soon as the sink can. It reports
// whether it is in force now and wasn't before.
func (f *file) publish(value secret.Value, version secret.Version, unproven string) (changed bool) {
	f.rendering.Lock()
	changed, id, err := f.render(value)
	if err == nil {
		f.notePublished(id, version, changed, unproven) // before mend compares the file with what is noted
	}
	f.rendering.Unlock()
	if err != nil {
		f.retryLater(unwritten{value, version, unproven}, err)
		return false
	}
	switch {
	case changed && unproven != "":
		f.log.Warn("published without proof", "version", version.String(), "reason", unproven)
	case changed:
		f.log.Info("published", "version", version.String())
	}
	f.forgetUnwritten()
	return changed
}

func (f *file) notePublished(id secret.Identity, version secret.Version, changed bool, unproven string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Rendered, f.status.Published = true, version
	if changed {
		f.status.Identity, f.status.Changed, f.status.Unproven = id, time.Now(), unproven
		f.status.Renders++
		f.status.Refused, f.claimed, f.inUse = false, false, false
	}
	if f.inUse {
		f.status.InUse.Version = version // equal bytes under a new version: what is in use moves along
	}
}

func (f *file) expectNext(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Next = t
}
