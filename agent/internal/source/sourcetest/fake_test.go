package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// fake is a store in memory, its driver and its harness in one. It passes the suite unless bug says otherwise.
type fake struct {
	bug string // what the driver does wrong

	mu       sync.Mutex
	versions []map[string]any
	created  []time.Time
	deleted  bool
	denied   bool
	down     bool
	broken   bool
	hang     chan struct{} // closed by Resume
	waiting  chan struct{}
	reads    int
}

const fakePath = "fake/gemini"

func (f *fake) Source() source.Source { return f }
func (f *fake) Path() string          { return fakePath }
func (f *fake) Versioned() bool       { return true }
func (f *fake) Delete()               { f.set(&f.deleted, true) }
func (f *fake) Restore()              { f.set(&f.deleted, false) }
func (f *fake) Deny()                 { f.set(&f.denied, true) }
func (f *fake) Allow()                { f.set(&f.denied, false) }
func (f *fake) Stop()                 { f.set(&f.down, true) }
func (f *fake) Start()                { f.set(&f.down, false) }
func (f *fake) Break()                { f.set(&f.broken, true) }
func (f *fake) Mend()                 { f.set(&f.broken, false) }

func (f *fake) set(flag *bool, to bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	*flag = to
}

func (f *fake) Put(fields map[string]any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.versions = append(f.versions, maps.Clone(fields))
	f.created = append(f.created, time.Unix(int64(len(f.versions)), 0))
}

func (f *fake) Hang() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hang, f.waiting = make(chan struct{}), make(chan struct{}, 1)
	return f.waiting
}

func (f *fake) Resume() {
	f.mu.Lock()
	defer f.mu.Unlock()
	close(f.hang)
	f.hang = nil
}

func (f *fake) Fetch(ctx context.Context, path string) (*source.Record, error) {
	return f.FetchVersion(ctx, path, 0)
}

func (f *fake) FetchVersion(ctx context.Context, path string, number int) (*source.Record, error) {
	if err := f.wait(ctx); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reads++
	index := len(f.versions) - 1
	if number > 0 {
		index = number - 1
	}
	switch {
	case f.bug == "denies under load" && f.reads > 100:
		return nil, &source.Error{Kind: source.Denied, Path: path, Reason: "too many"}
	case f.down && f.bug != "serves while down":
		return nil, &source.Error{Kind: source.Unavailable, Reason: "it is down"}
	case f.broken && f.bug == "blames the store":
		return nil, &source.Error{Kind: source.Unavailable, Reason: "it is broken"}
	case f.broken:
		return nil, &source.Error{Kind: source.Failed, Path: path, Reason: "it is broken"}
	case f.denied && f.bug != "ignores permissions":
		return nil, &source.Error{Kind: source.Denied, Path: path, Reason: "not yours"}
	case f.deleted && f.bug == "serves what was deleted":
	case index < 0 && f.bug == "raw errors":
		return nil, errors.New("nothing")
	case index < 0, index >= len(f.versions), f.deleted:
		return nil, &source.Error{Kind: source.NotFound, Path: path, Reason: "nothing is there"}
	}
	return f.record(path, index)
}

func (f *fake) wait(ctx context.Context) error {
	f.mu.Lock()
	hang, waiting := f.hang, f.waiting
	f.mu.Unlock()
	if ctx.Err() != nil && f.bug != "ignores its context" {
		return ctx.Err()
	}
	if hang == nil {
		return nil
	}
	waiting <- struct{}{}
	done := ctx.Done()
	if f.bug == "doesn't end with its context" {
		done = nil
	}
	select {
	case <-done:
		return ctx.Err()
	case <-hang:
		return nil
	}
}

func (f *fake) record(path string, index int) (*source.Record, error) {
	switch {
	case f.bug == "serves the oldest", f.bug == "serves one version for all":
		index = 0
	case f.bug == "has no history":
		index = len(f.versions) - 1
	}
	fields := map[string]secret.Value{}
	for name, value := range f.versions[index] {
		text, isString := value.(string)
		switch {
		case isString && f.bug == "mangles bytes":
			fields[name] = secret.New(bytes.ToValidUTF8(bytes.Trim([]byte(text), " \x00"), nil))
		case isString && text == "" && f.bug == "drops empty values":
		case isString && f.bug == "drops fields" && len(f.versions[index]) == 2 && name == "second":
		case isString && f.bug == "cuts long values" && len(text) > source.MaxValue:
			fields[name] = secret.New([]byte(text[:source.MaxValue]))
		case isString:
			fields[name] = secret.New([]byte(text))
		case f.bug == "prints what is no string":
			fields[name] = secret.New([]byte("{}"))
		default:
			fields[name] = secret.Value{}
		}
	}
	if f.bug == "invents fields" && fields[field].IsZero() {
		fields[field] = secret.New(nil)
	}
	r := source.NewRecord(path, fields)
	r.Version = secret.Version{Number: index + 1, Created: f.created[index]}
	switch f.bug {
	case "counts reads":
		r.Version.Number = f.reads
	case "no versions":
		r.Version = secret.Version{}
	}
	return r, nil
}
