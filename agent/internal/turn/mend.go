package turn

import (
	"context"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// mendInterval is how often the files are looked at. It compares states and waits for no event, so whoever changes a file
// over and over has it put back once in that time.
const mendInterval = time.Second

// mend puts back what somebody changed, until ctx ends. It asks neither the store nor the gate, and waits for neither.
func (l *Loop) mend(ctx context.Context) {
	for {
		pause(ctx, mendInterval, nil)
		if ctx.Err() != nil {
			return
		}
		for _, f := range l.files {
			f.mend()
			f.writeUnwritten()
		}
	}
}

func (f *file) mend() {
	f.rendering.Lock()
	defer f.rendering.Unlock()
	if f.value.IsZero() {
		return
	}
	f.trouble(mending, f.mendIfDrifted())
}

// mendIfDrifted renders the value in force again if the file was changed. The caller holds rendering, and there is a value.
func (f *file) mendIfDrifted() problem {
	found := f.sink.Drift(f.File)
	if found == "" {
		return problem{}
	}
	id, written, err := f.sink.Render(f.File, f.value)
	if err != nil {
		return problem{KindRender, err.Error()}
	}
	if written {
		f.noteRepaired(id)
		f.log.Warn("repaired the file", "found", found)
	}
	return problem{}
}

func (f *file) noteRepaired(id secret.Identity) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.status.Identity = id
	f.status.Renders++
	f.status.Repairs++
}

// render makes value the one in force, and reports whether it is another than before. On an error nothing has changed.
func (f *file) render(value secret.Value) (changed bool, id secret.Identity, err error) {
	f.rendering.Lock()
	defer f.rendering.Unlock()
	if value.Equal(f.value) {
		f.trouble(mending, f.mendIfDrifted())
		return false, secret.Identity{}, nil
	}
	id, written, err := f.sink.Render(f.File, value)
	if err != nil {
		return false, secret.Identity{}, err
	}
	f.value.Clear()
	f.value = f.path.loop.remember(value) // the record that it came from is cleared after this turn
	if written {
		f.mu.Lock()
		f.status.Renders++
		f.mu.Unlock()
	}
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
// proof.
type unwritten struct {
	value    secret.Value // a copy of our own
	version  secret.Version
	unproven string
}

// retryLater and forgetUnwritten are for whoever holds turning.
func (f *file) retryLater(value secret.Value, version secret.Version, unproven string) {
	again := secret.New(value.Reveal())
	f.forgetUnwritten()
	f.unwritten = &unwritten{again, version, unproven}
}

func (f *file) forgetUnwritten() {
	if f.unwritten != nil {
		f.unwritten.value.Clear()
		f.unwritten = nil
	}
}

// writeUnwritten tries again to publish what couldn't be written. It leaves that to whoever turns the file at the moment.
func (f *file) writeUnwritten() {
	if !f.turning.TryLock() {
		return
	}
	defer f.turning.Unlock()
	if u := f.unwritten; u != nil {
		f.publish(u.value, u.version, u.unproven)
	}
}
