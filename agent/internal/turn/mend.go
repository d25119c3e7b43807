package turn

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// mendInterval is how often directory and files are looked at. Nothing else repairs them, so whoever changes a file over and
// over has it put back once in that time, whatever is asked meanwhile.
const mendInterval = time.Second

// mend puts back what somebody changed, until ctx ends. It compares states and waits for no event; it asks neither the store
// nor the gate, and waits for neither.
func (l *Loop) mend(ctx context.Context) {
	for {
		pause(ctx, mendInterval, nil)
		if ctx.Err() != nil {
			return
		}
		repaired, trouble := l.mendDirectory()
		for _, f := range l.files {
			if trouble != (problem{}) {
				f.share(mending, trouble)
			} else {
				f.mend(repaired)
			}
			f.writeUnwritten()
		}
	}
}

// mendDirectory looks after the directory. It says once for all files whether that was repaired, or what keeps it from that.
func (l *Loop) mendDirectory() (repaired bool, trouble problem) {
	found, err := l.config.Sink.Mend()
	if err != nil {
		trouble = problem{KindRender, err.Error()}
	}
	worthALine := l.directory.set(mending, trouble)
	switch {
	case err != nil && worthALine:
		l.config.Log.Warn("the directory can't be repaired", "found", found, "reason", trouble.reason)
	case err != nil:
	case found != "":
		l.config.Log.Warn("repaired the directory", "found", found)
	case worthALine:
		l.config.Log.Info("the directory is in order again")
	}
	return err == nil && found != "", trouble
}

// mend puts the file back if somebody changed it, or if its directory was put back: the line about that stands for all files.
func (f *file) mend(directory bool) {
	f.rendering.Lock()
	defer f.rendering.Unlock()
	found := ""
	switch {
	case f.value.IsZero():
	case directory:
		found = "its directory"
	default:
		found = f.sink.Drift(f.File, f.value, f.identity())
	}
	if found == "" {
		f.trouble(mending, problem{})
		return
	}
	id, err := f.sink.Render(f.File, f.value)
	if err != nil {
		f.trouble(mending, problem{KindRender, err.Error()})
		return
	}
	f.noteRepaired(id)
	if !directory {
		f.log.Warn("repaired the file", "found", found)
	}
	f.trouble(mending, problem{})
}

func (f *file) identity() secret.Identity {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.status.Identity
}

func (f *file) noteRepaired(id secret.Identity) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Identity = id
	f.status.Renders++
	f.status.Repairs++
}

// render makes value the one in force, and reports whether it is another than before. On an error nothing has changed. The
// caller holds turning and rendering.
func (f *file) render(value secret.Value) (changed bool, id secret.Identity, err error) {
	if value.Equal(f.value) {
		return false, secret.Identity{}, nil
	}
	id, err = f.sink.Render(f.File, value)
	if err != nil {
		return false, secret.Identity{}, err
	}
	f.value.Clear()
	f.value = f.path.loop.remember(value) // the record that it came from is cleared after this turn
	return true, id, nil
}

// remember copies a value to where those in force are kept.
func (l *Loop) remember(v secret.Value) secret.Value {
	kept, err := l.config.Memory.Keep(v.Reveal())
	if err != nil && !l.unlocked.Swap(true) {
		l.config.Log.Warn("a value in force lies in memory that may be swapped out", "reason", err.Error())
	}
	return kept
}

// unwritten is a value that may be published, once the sink can write again. It needs no other look at the store, nor another
// proof; what either says of it meanwhile counts.
type unwritten struct {
	value    secret.Value // a copy of our own
	version  secret.Version
	unproven string
}

// retryLater, forgetUnwritten and withdraw are for whoever holds turning.
func (f *file) retryLater(u unwritten, reason error) {
	u.value = secret.New(u.value.Reveal()) // of what waits already, perhaps
	if f.unwritten != nil {
		f.unwritten.value.Clear()
	}
	f.unwritten = &u
	f.trouble(rendering, problem{KindRender, reason.Error()})
}

// forgetUnwritten forgets what waits to be written, and that the sink couldn't.
func (f *file) forgetUnwritten() {
	if f.unwritten == nil {
		return
	}
	f.unwritten.value.Clear()
	f.unwritten = nil
	f.trouble(rendering, problem{})
}

// withdraw forgets value if it waits to be written: the gate let it through once, and doesn't any more.
func (f *file) withdraw(value secret.Value) {
	if f.unwritten != nil && f.unwritten.value.Equal(value) {
		f.forgetUnwritten()
	}
}

// writeUnwritten tries again to publish what couldn't be written. It leaves that to whoever turns the file at the moment.
func (f *file) writeUnwritten() {
	if !f.turning.TryLock() {
		return
	}
	defer f.turning.Unlock()
	if u := f.unwritten; u != nil {
		f.publishStandIn(u.value, u.version, u.unproven)
	}
}
