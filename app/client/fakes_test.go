package client_test

import (
	"context"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/app/sidecar"
)

const prompt = "Why is the sky blue?"

// invalid is what Gemini says of a key that was revoked.
var invalid = &gemini.Error{Fault: gemini.FaultKey, Status: 400, Reason: "API_KEY_INVALID", Message: "API key not valid."}

// api stands in for Gemini. It accepts every key of which the test has said nothing else, and judges a key when the call
// arrives.
type api struct {
	mu       sync.Mutex
	says     map[string]func() error // by key
	latency  time.Duration           // of a call
	pieces   []any                   // of a stream: texts, and errors that end it
	interval time.Duration           // before each piece but the first
	arrived  []string                // the key of each call
	probed   []time.Time

	probeLatency time.Duration
	probing      error // what probes come to, whatever the key
	lenient      bool  // probes are accepted, whatever the key
}

func newAPI() *api { return &api{says: map[string]func() error{}, pieces: []any{"Bl", "ue."}} }

// refuse makes api say err to each key from now on; nil accepts them.
func (a *api) refuse(err error, keys ...string) {
	for _, key := range keys {
		a.say(key, func() error { return err })
	}
}

func (a *api) accept(keys ...string) { a.refuse(nil, keys...) }

// flap makes api refuse key every so many calls and probes.
func (a *api) flap(key string, every int) {
	n := 0
	a.say(key, func() error {
		if n++; n%every == 0 {
			return invalid
		}
		return nil
	})
}

// say makes api answer calls with key as f says, one at a time.
func (a *api) say(key string, f func() error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.says[key] = f
}

func (a *api) set(change func(*api)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

// calls returns the keys of the calls so far, in the order of their arrival.
func (a *api) calls() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.arrived, " ")
}

// probes returns when probes arrived, counted from start.
func (a *api) probes(start time.Time) (at []time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, t := range a.probed {
		at = append(at, t.Sub(start))
	}
	return at
}

// Client implements client.Backend.
func (a *api) Client(key keyfile.Key) gemini.Client { return &caller{a, key.Reveal()} }

type caller struct {
	api *api
	key string
}

// arrive judges the key and then takes as long as a call does.
func (c *caller) arrive(ctx context.Context) error {
	c.api.mu.Lock()
	c.api.arrived = append(c.api.arrived, c.key)
	err, latency := c.judge(), c.api.latency
	c.api.mu.Unlock()
	if !pass(ctx, latency) {
		return ctx.Err()
	}
	return err
}

func (c *caller) judge() error {
	if says := c.api.says[c.key]; says != nil {
		return says()
	}
	return nil
}

// pass lets d pass, and reports false if ctx ends first.
func pass(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (c *caller) Generate(ctx context.Context, prompt string) (string, error) {
	if err := c.arrive(ctx); err != nil {
		return "", err
	}
	return "answer to " + prompt, nil
}

func (c *caller) Stream(ctx context.Context, _ string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := c.arrive(ctx); err != nil {
			yield("", err)
			return
		}
		c.api.mu.Lock()
		pieces, interval := c.api.pieces, c.api.interval
		c.api.mu.Unlock()
		for i, piece := range pieces {
			if i > 0 && !pass(ctx, interval) {
				piece = ctx.Err()
			}
			if err, ok := piece.(error); ok {
				yield("", err)
				return
			}
			if !yield(piece.(string), nil) {
				return
			}
		}
	}
}

func (c *caller) Probe(ctx context.Context) error {
	c.api.mu.Lock()
	c.api.probed = append(c.api.probed, time.Now())
	latency := c.api.probeLatency
	c.api.mu.Unlock()
	if !pass(ctx, latency) {
		return ctx.Err()
	}
	c.api.mu.Lock()
	defer c.api.mu.Unlock()
	if c.api.probing != nil || c.api.lenient {
		return c.api.probing
	}
	return c.judge()
}

// file yields what the test puts into it.
type file struct {
	readings chan reading
	checked  chan struct{} // capacity one, as in keyfile
}

type reading struct {
	keyfile.Reading
	err error
}

func newFile() *file { return &file{make(chan reading), make(chan struct{}, 1)} }

func (f *file) Check() {
	select {
	case f.checked <- struct{}{}:
	default:
	}
}

func (f *file) Keys(ctx context.Context) iter.Seq2[keyfile.Reading, error] {
	return func(yield func(keyfile.Reading, error) bool) {
		for {
			select {
			case r := <-f.readings:
				if !yield(r.Reading, r.err) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// put makes the file hold key, under an identity with that inode, and returns once it is taken.
func (f *file) put(t testing.TB, key string, inode uint64) {
	t.Helper()
	f.readings <- reading{Reading: keyfile.Reading{Key: newKey(t, key), Identity: identity(inode)}}
}

func (f *file) fail(err error) { f.readings <- reading{err: err} }

func newKey(t testing.TB, text string) keyfile.Key {
	t.Helper()
	key, err := keyfile.NewKey([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func identity(inode uint64) keyfile.Identity { return keyfile.Identity{Inode: inode, ModTime: 1} }

// agent hears refreshes and acknowledgements. At first it holds nothing newer and takes every acknowledgement.
type agent struct {
	mu        sync.Mutex
	refresh   func(ctx context.Context) (sidecar.Refreshed, error)
	answer    error // to acknowledgements
	hangs     bool  // when it is told
	instance  sidecar.Instance
	refreshed []call
	acks      []call
}

// call is what the agent was told, and when.
type call struct {
	about   uint64 // the inode of the identity
	at      time.Time
	since   time.Time // of an acknowledgement
	refused bool      // of a refresh
}

func (a *agent) Refresh(ctx context.Context, have keyfile.Identity, refused bool) (sidecar.Refreshed, error) {
	a.mu.Lock()
	a.refreshed = append(a.refreshed, call{about: have.Inode, at: time.Now(), refused: refused})
	refresh := a.refresh
	a.mu.Unlock()
	if refresh == nil {
		return sidecar.Refreshed{Outcome: sidecar.Unchanged}, nil
	}
	return refresh(ctx)
}

func (a *agent) Acknowledge(ctx context.Context, id keyfile.Identity, at time.Time) error {
	a.mu.Lock()
	a.acks = append(a.acks, call{about: id.Inode, at: time.Now(), since: at})
	answer, hangs := a.answer, a.hangs
	a.mu.Unlock()
	if hangs {
		<-ctx.Done()
		return ctx.Err()
	}
	return answer
}

func (a *agent) Instance() sidecar.Instance {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.instance
}

func (a *agent) set(change func(*agent)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

func (a *agent) refreshes() []call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.refreshed)
}

func (a *agent) acknowledged() []call {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.acks)
}
