package client

import (
	"context"
	"errors"
	"iter"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
)

// script is a Keys and a Backend: it brings keys when the test says so, and its API is as the test says.
type script struct {
	keys chan string
	api  func(key string) error
}

func (s *script) Keys(ctx context.Context) iter.Seq2[keyfile.Reading, error] {
	return func(yield func(keyfile.Reading, error) bool) {
		for n := int64(1); ; n++ {
			select {
			case name := <-s.keys:
				key, err := keyfile.NewKey([]byte(name))
				if !yield(keyfile.Reading{Key: key, Identity: keyfile.Identity{ModTime: n}}, err) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

func (s *script) Check() {}

func (s *script) Client(key keyfile.Key) gemini.Client {
	return scripted{func() error { return s.api(string(key.Reveal())) }}
}

type scripted struct{ call func() error }

func (s scripted) Generate(context.Context, string) (string, error)        { return "answer", s.call() }
func (s scripted) Stream(context.Context, string) iter.Seq2[string, error] { return nil }
func (s scripted) Probe(context.Context) error                             { return s.call() }

var refused = &gemini.Error{Fault: gemini.FaultKey, Status: 400, Reason: "API_KEY_INVALID"}

// running returns a client that takes its keys from s, until the test ends.
func running(t *testing.T, s *script) *Client {
	c := New(Config{Keys: s, Backend: s})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return c
}

// A model that takes minutes leaves its request all of its patience for the next key.
func TestTheTimeThatACallTakesIsNoTimeOfWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{keys: make(chan string, 1), api: func(key string) error {
			switch key {
			case "first":
				return refused
			case "second":
				time.Sleep(time.Minute) // in the bubble's time
				return refused
			}
			return nil
		}}
		c := running(t, s)
		s.keys <- "first"
		synctest.Wait()
		time.AfterFunc(time.Second, func() { s.keys <- "second" })
		time.AfterFunc(time.Minute+1900*time.Millisecond, func() { s.keys <- "third" })
		if answer, err := c.Generate(t.Context(), "hello"); err != nil || answer.Generation != 3 {
			t.Errorf("generation %d, %v", answer.Generation, err)
		}
	})
}

// A generation is given up only by who has waited for a better one as long as anybody does.
func TestARequestAtTheEndOfItsPatienceCondemnsNoNewerKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{keys: make(chan string, 1), api: func(key string) error {
			if key == "third" {
				return nil
			}
			return refused
		}}
		c := running(t, s)
		s.keys <- "first"
		synctest.Wait()
		time.AfterFunc(1500*time.Millisecond, func() { s.keys <- "second" })
		time.AfterFunc(2500*time.Millisecond, func() { s.keys <- "third" })
		early := make(chan error, 1)
		go func() {
			_, err := c.Generate(t.Context(), "asked at once, so given up after two seconds")
			early <- err
		}()
		time.Sleep(1900 * time.Millisecond)
		if answer, err := c.Generate(t.Context(), "asked later"); err != nil || answer.Generation != 3 {
			t.Errorf("who could wait got generation %d, %v", answer.Generation, err)
		}
		if err := <-early; !errors.Is(err, ErrRefused) {
			t.Errorf("who had waited for two seconds got %v", err)
		}
	})
}
