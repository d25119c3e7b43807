package turn_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/gate"
	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/examples/logtest"
)

// fakeStore is a store in memory: a source.Source, a source.Keeper and a source.Historian. It is zero-latency unless told.
type fakeStore struct {
	mu      sync.Mutex
	paths   map[string][]version // oldest first
	answers map[string]int       // a path and the index that a lagging standby answers with
	refresh time.Duration
	fails   map[string]*source.Error // by path; "" for all
	latency time.Duration
	reads   []read
	keeps   []time.Time
	keep    func() (time.Duration, error)
	running int
	most    int // reads that ran at once
}

type version struct {
	secret.Version
	fields map[string]string
}

type read struct {
	path   string
	number int // 0 for the newest
	at     time.Time
}

func newFakeStore() *fakeStore {
	return &fakeStore{paths: map[string][]version{}, answers: map[string]int{}, fails: map[string]*source.Error{}}
}

// put writes a new version whose one field is "key".
func (s *fakeStore) put(path, key string) { s.putFields(path, map[string]string{"key": key}) }

func (s *fakeStore) putFields(path string, fields map[string]string) {
	s.putVersion(path, len(s.paths[path])+1, time.Now(), fields)
}

func (s *fakeStore) putVersion(path string, number int, created time.Time, fields map[string]string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.paths[path] = append(s.paths[path], version{secret.Version{Number: number, Created: created}, fields})
}

// lag makes the store answer with the version before its newest, as a standby does; catchUp ends that.
func (s *fakeStore) lag(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers[path] = len(s.paths[path]) - 2
}

func (s *fakeStore) catchUp(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.answers, path)
}

// fail makes reads of path fail, or all reads if it is empty; a nil error mends it.
func (s *fakeStore) fail(path string, err *source.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fails[path] = err
}

// slow makes reads take d.
func (s *fakeStore) slow(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency = d
}

func (s *fakeStore) Fetch(ctx context.Context, path string) (*source.Record, error) {
	return s.FetchVersion(ctx, path, 0)
}

func (s *fakeStore) FetchVersion(ctx context.Context, path string, number int) (*source.Record, error) {
	s.mu.Lock()
	latency := s.latency
	s.reads = append(s.reads, read{path, number, time.Now()})
	s.running++
	s.most = max(s.most, s.running)
	s.mu.Unlock()
	t := time.NewTimer(latency)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	failure := cmp.Or(s.fails[""], s.fails[path])
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case failure != nil:
		return nil, failure
	}
	versions := s.paths[path]
	i := len(versions) - 1
	if lagging, ok := s.answers[path]; ok {
		i = lagging
	}
	if number > 0 {
		i = slices.IndexFunc(versions, func(v version) bool { return v.Number == number })
	}
	if i < 0 {
		return nil, &source.Error{Kind: source.NotFound, Path: path, Reason: "there is no secret"}
	}
	return s.record(path, versions[i]), nil
}

func (s *fakeStore) record(path string, v version) *source.Record {
	fields := map[string]secret.Value{}
	for name, value := range v.fields {
		fields[name] = secret.New([]byte(value))
	}
	r := source.NewRecord(path, fields)
	r.Version, r.RefreshAfter = v.Version, s.refresh
	return r
}

func (s *fakeStore) Keep(context.Context) (time.Duration, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeps = append(s.keeps, time.Now())
	if s.keep == nil {
		return time.Hour, nil
	}
	return s.keep()
}

// took returns the reads so far and forgets them.
func (s *fakeStore) took() []read {
	s.mu.Lock()
	defer s.mu.Unlock()
	reads := s.reads
	s.reads = nil
	return reads
}

// fakeSink is a directory in memory.
type fakeSink struct {
	mu      sync.Mutex
	files   map[string]rendered
	renders int // writes
	last    int64
	err     error
	found   string                // what is wrong with the directory, until Mend says so
	beyond  error                 // what keeps Mend from mending it
	written func(secret.Identity) // called at the end of each write; may be nil
}

type rendered struct {
	content string
	id      secret.Identity
}

func newFakeSink() *fakeSink { return &fakeSink{files: map[string]rendered{}} }

func (s *fakeSink) Adopt(file string) (secret.Value, secret.Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.files[file]
	if !ok {
		return secret.Value{}, secret.Identity{}, fs.ErrNotExist
	}
	if r.content == "" {
		return secret.Value{}, secret.Identity{}, errors.New("it is not fit to be taken over")
	}
	return secret.New([]byte(r.content)), r.id, nil
}

func (s *fakeSink) Render(file string, v secret.Value) (secret.Identity, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmp.Or(s.err, s.beyond); err != nil {
		return secret.Identity{}, err
	}
	s.renders++
	s.write(file, string(v.Reveal()))
	id := s.files[file].id
	if s.written != nil {
		s.written(id)
	}
	return id, nil
}

func (s *fakeSink) Drift(file string, v secret.Value, id secret.Identity) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.files[file]
	switch {
	case !ok:
		return "no file"
	case r.content != string(v.Reveal()):
		return "other content"
	case r.id != id:
		return "a file that was touched"
	}
	return ""
}

func (s *fakeSink) Mend() (found string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	found = s.found
	if s.beyond == nil {
		s.found = ""
	}
	return found, s.beyond
}

// replaceDirectory takes all files away. Mend says so, or that it can't make another directory.
func (s *fakeSink) replaceDirectory(beyond error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.files)
	s.found, s.beyond = "another directory", beyond
}

// obstruct makes Mend fail, and takes nothing away.
func (s *fakeSink) obstruct(beyond error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beyond = beyond
}

// letMend lets Mend put the directory back.
func (s *fakeSink) letMend() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beyond = nil
}

func (s *fakeSink) write(file, content string) {
	s.last = max(s.last+1, time.Now().UnixNano())
	s.files[file] = rendered{content, secret.Identity{Inode: uint64(len(s.files) + 1), ModTime: s.last}}
}

// tamper is somebody else's write; plant is one that leaves the file's identity as it was.
func (s *fakeSink) tamper(file, content string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.write(file, content)
}

func (s *fakeSink) plant(file, content string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[file] = rendered{content, s.files[file].id}
}

func (s *fakeSink) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = err
}

func (s *fakeSink) get(file string) (content string, id secret.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.files[file].content, s.files[file].id
}

// fakeGemini is a gate.Prober that knows what each key is answered with. A key that it doesn't know is refused.
type fakeGemini struct {
	mu     sync.Mutex
	keys   map[string]gate.Answer
	probes []probe
}

type probe struct {
	key string
	at  time.Time
}

var (
	accepted = gate.Answer{Kind: gate.Accepted}
	refused  = gate.Answer{Kind: gate.Refused, Reason: "HTTP 400 API_KEY_INVALID"}
	silent   = gate.Answer{Kind: gate.Unknown, Reason: "no answer in time"}
)

func (g *fakeGemini) answer(key string, a gate.Answer) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keys[key] = a
}

func (g *fakeGemini) Probe(_ context.Context, key secret.Value) gate.Answer {
	g.mu.Lock()
	defer g.mu.Unlock()
	k := string(key.Reveal())
	g.probes = append(g.probes, probe{k, time.Now()})
	if a, ok := g.keys[k]; ok {
		return a
	}
	return refused
}

// asked returns the probes so far and forgets them.
func (g *fakeGemini) asked() []probe {
	g.mu.Lock()
	defer g.mu.Unlock()
	probes := g.probes
	g.probes = nil
	return probes
}

// logs collects log lines.
type logs struct{ logtest.Page }

// lines returns the messages so far, each with its reason, and forgets them.
func (l *logs) lines() []string {
	var lines []string
	for line := range strings.Lines(l.Take()) {
		var entry struct{ Msg, Reason string }
		if json.Unmarshal([]byte(line), &entry) == nil {
			lines = append(lines, entry.Msg+": "+entry.Reason)
		}
	}
	return lines
}
