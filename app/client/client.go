// Package client is a Gemini client whose key changes under it, and whose requests don't notice.
//
//	backend, err := gemini.New(ctx, gemini.Config{})
//	c := client.New(client.Config{
//		Keys:    keyfile.New(keyfile.Config{Path: "/run/keyturn/keys/gemini-api-key"}),
//		Backend: backend,
//		Agent:   sidecar.New("/run/keyturn/keys/agent.sock", "/run/keyturn/keys/gemini-api-key"),
//	})
//	go c.Run(ctx)
//	answer, err := c.Generate(ctx, "Hello")
//
// Each key that the file brings is a generation. A request leases the current one; when Gemini says that its key is bad,
// the request is run again on another: on a newer generation, or on the predecessor while the agent is asked for a newer
// key, or it waits for that key, two seconds at most. A caller sees an error about the key only if no key works.
//
// # Decisions
//
// A refused generation is refused for everybody until a probe of ours is accepted, so that a bad key costs one request and
// not each of them. An answer that was on its way when the key was refused changes nothing: it speaks of the past.
//
// Front ends may judge a key differently for long. Requests go on using it as soon as a probe is accepted, since it answers
// some of them. But a probe whose word the next request refutes makes the next one wait longer, what the agent is asked for
// one generation is bounded, and of one generation the log says once a minute at most that it is refused or fails requests.
//
// Only what the API says of the key moves a request to another key. A quota, an outage or a blocked project is the same on
// the next key, so those errors come out as they are.
//
// Rejected: probing each new key before it is used. The agent has proven it, and a probe would hold every rotation up for
// a round trip, while the predecessor catches what it could find.
package client

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/app/sidecar"
	"github.com/keyturn/keyturn/app/swap"
)

// ErrNoKey is returned, perhaps wrapped, while no valid key has been read.
var ErrNoKey = errors.New("there is no key yet")

// ErrRefused is returned when Gemini refuses every key that is at hand; wrapped together with the last refusal if the request
// met one itself, and as it is if it was not sent, since others had been refused.
var ErrRefused = errors.New("every key that is at hand is refused by Gemini")

// Keys is where keys come from; a *keyfile.Watcher, or Static.
type Keys interface {
	// Keys yields each key, and the reason whenever it changes why there is none, until ctx ends.
	Keys(ctx context.Context) iter.Seq2[keyfile.Reading, error]
	// Check makes Keys look now rather than later. It doesn't block.
	Check()
}

// Backend makes the client of a key; a *gemini.Backend.
type Backend interface {
	Client(key keyfile.Key) gemini.Client
}

// Agent is who renders the key; a *sidecar.Agent.
type Agent interface {
	Refresh(ctx context.Context, have keyfile.Identity, refused bool) (sidecar.Refreshed, error)
	Acknowledge(ctx context.Context, id keyfile.Identity, at time.Time) error
	Instance() sidecar.Instance
}

// Config is what a Client needs.
type Config struct {
	Keys    Keys
	Backend Backend
	// Agent is asked for a better key and told which one is in use. Nil, or a nil *sidecar.Agent: nobody, and the file alone
	// brings keys.
	Agent Agent
	// Log gets one line for each change of state that lasts. Nil: nowhere.
	Log *slog.Logger
}

// Answer is a text, or a piece of one, and the generation whose key it was answered with.
type Answer struct {
	Text       string
	Generation uint64
}

// Client asks Gemini with the newest key that works. Use New. It is safe for concurrent use.
type Client struct {
	config   Config
	handle   *swap.Handle[*generation]
	firstUse chan struct{} // capacity one: there may be something to acknowledge

	over atomic.Bool // Run has ended

	mu           sync.Mutex
	news         chan struct{} // closed, and made anew, whenever a verdict on a key changes
	problem      string        // why the file holds no valid key; empty if it does
	agentProblem string        // why the agent can't be asked; empty if it can

	// gaveUp is the generation than which a request has waited for a better one in vain; nil from the next acceptance on.
	gaveUp    atomic.Pointer[uint64]
	complaint complaint // guarded by mu
	counters  counters
}

// New returns a client, which has no key before Run runs. It panics if c lacks Keys or Backend.
func New(c Config) *Client {
	if c.Keys == nil || c.Backend == nil {
		panic("client: a Config needs Keys, which say where keys come from, and a Backend, which makes each key's client")
	}
	if agent, ok := c.Agent.(*sidecar.Agent); ok && agent == nil {
		c.Agent = nil
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Client{config: c, handle: swap.New[*generation](nil), firstUse: make(chan struct{}, 1), news: make(chan struct{})}
}

// Run takes keys, asks for better ones, and acknowledges, until ctx ends; then it waits for all that it started and returns
// nil. It may be called once. A panic of Keys or Backend comes out of it.
//
// Requests may go on after it, on the keys that are at hand then: none waits for another. Nobody would find out that a refused
// key serves again, so no refusal counts for the next request.
func (c *Client) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var group sync.WaitGroup
	defer group.Wait()
	defer func() {
		c.over.Store(true)
		c.announce() // whoever waits for a better key
		cancel()     // or a panic would wait until ctx ends
	}()
	group.Go(func() { c.probeInDoubt(ctx) })
	if c.config.Agent != nil {
		group.Go(func() { c.refreshWhenRefused(ctx) })
		group.Go(func() { c.acknowledgeFirstUse(ctx) })
	}
	for reading, err := range c.config.Keys.Keys(ctx) {
		c.take(reading, err)
	}
	return nil
}

// take publishes the key of a reading, unless it is the current one.
func (c *Client) take(reading keyfile.Reading, err error) {
	c.note(err)
	if err != nil {
		return
	}
	current, ok := c.handle.Acquire()
	if ok {
		defer current.Release()
		if g := current.Value(); g.key.Equal(reading.Key) {
			g.identity.Store(&reading.Identity)
			c.wakeAcknowledge()
			return
		}
	}
	g := &generation{client: c.config.Backend.Client(reading.Key), key: reading.Key, since: time.Now()}
	g.identity.Store(&reading.Identity)
	publish := c.handle.Publish
	if ok && isRefused(current.Value()) { // what still serves is the generation before it
		publish = c.handle.Replace
	}
	number := publish(g)
	c.config.Log.Info("swapped the key", "generation", number)
	if before, ok := c.handle.AcquirePredecessor(); ok {
		defer before.Release()
		// It may be the same key, brought back, which can't stand in for itself; or have been refused just before it was one.
		if before.Value().key.Equal(g.key) || isRefused(before.Value()) {
			c.handle.Drop(before.Generation())
		}
	}
}

// note remembers why there is no valid key to read, and logs it and its end: Keys says so once a change.
func (c *Client) note(err error) {
	problem := ""
	if err != nil {
		problem = err.Error()
	}
	c.mu.Lock()
	before := c.problem
	c.problem = problem
	c.mu.Unlock()
	lease, ok := c.handle.Acquire()
	if ok {
		defer lease.Release()
	}
	switch {
	case err != nil && ok:
		c.config.Log.Warn("the key file holds no valid key; the last good one stays in force", "reason", problem)
	case err != nil:
		c.config.Log.Warn("the key file holds no valid key yet", "reason", problem)
	case before != "":
		c.config.Log.Info("the key file holds a valid key")
	}
}

// Generate answers prompt. Its errors are those of gemini.Client, ErrNoKey, or ErrRefused, perhaps with a refusal.
// It blocks for as long as Gemini takes, and two seconds more at most when keys are refused.
func (c *Client) Generate(ctx context.Context, prompt string) (Answer, error) {
	var answer Answer
	err := c.run(ctx, func(l lease) (begun bool, err error) {
		text, err := l.Value().client.Generate(ctx, prompt)
		answer = Answer{text, l.Generation()}
		return false, err
	})
	if err != nil {
		return Answer{}, err
	}
	return answer, nil
}

// Stream answers prompt piece by piece, as Gemini does; all pieces are of one generation. An answer without text is one
// empty piece. The last element is an error unless the answer is complete. A refusal of the key before the first piece is
// rescued as in Generate; one after it, which a stream outlives at Google, comes out. Each ranging over the sequence is a
// request of its own.
func (c *Client) Stream(ctx context.Context, prompt string) iter.Seq2[Answer, error] {
	return func(yield func(Answer, error) bool) {
		err := c.run(ctx, func(l lease) (begun bool, err error) {
			for text, err := range l.Value().client.Stream(ctx, prompt) {
				if err != nil {
					return begun, err
				}
				if !begun { // the answer may take minutes to end, but its key is accepted
					begun = true
					c.accept(l)
				}
				if !yield(Answer{text, l.Generation()}, nil) {
					return begun, errLeft
				}
			}
			if !begun { // whoever asked learns of the generation all the same
				yield(Answer{Generation: l.Generation()}, nil)
			}
			return begun, nil
		})
		if err != nil && err != errLeft {
			yield(Answer{}, err)
		}
	}
}

// errLeft ends a stream whose caller wants no more of it.
var errLeft = errors.New("the caller left")

// Static is the Keys of one key that never changes, for local work without an agent.
func Static(key keyfile.Key) Keys { return static{key} }

type static struct{ key keyfile.Key }

func (s static) Check() {}

func (s static) Keys(ctx context.Context) iter.Seq2[keyfile.Reading, error] {
	return func(yield func(keyfile.Reading, error) bool) {
		if yield(keyfile.Reading{Key: s.key}, nil) {
			<-ctx.Done()
		}
	}
}
