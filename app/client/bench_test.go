package client_test

import (
	"context"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/app/sidecar"
)

// instant answers at once. The calls with the key that is revoked are all refused at the same instant, that in which the
// last one of them arrives.
type instant struct{ revoked atomic.Pointer[revocation] }

type revocation struct {
	key     string
	waited  atomic.Int64 // for that many calls
	arrived chan struct{}
}

func (i *instant) revoke(key string, calls int) {
	r := &revocation{key: key, arrived: make(chan struct{})}
	r.waited.Store(int64(calls))
	i.revoked.Store(r)
}

func (i *instant) Client(key keyfile.Key) gemini.Client { return instantly{i, key.Reveal()} }

type instantly struct {
	api *instant
	key string
}

func (i instantly) Probe(context.Context) error { return nil }

func (i instantly) Generate(context.Context, string) (string, error) {
	r := i.api.revoked.Load()
	if r == nil || r.key != i.key {
		return "Blue.", nil
	}
	if r.waited.Add(-1) == 0 {
		close(r.arrived)
	}
	<-r.arrived
	return "", invalid
}

func (i instantly) Stream(context.Context, string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) { yield("Blue.", nil) }
}

// What a request costs beside the call itself.
func BenchmarkRun(b *testing.B) {
	f := newFile()
	c := client.New(client.Config{Keys: f, Backend: &instant{}, Agent: &agent{}})
	stop := run(c)
	defer stop()
	f.put(b, "key", 1)
	eventually(b, "the key serves", func() bool { return c.Status().Generation == 1 })
	ctx := b.Context()
	b.Run("generate", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := c.Generate(ctx, prompt); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("stream", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for _, err := range c.Stream(ctx, prompt) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("parallel", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				if _, err := c.Generate(ctx, prompt); err != nil {
					b.Error(err)
				}
			}
		})
	})
}

// A thousand requests are refused at the same instant, ask the agent once between them, and are all answered by the next
// generation: the time from their start to the last answer.
func BenchmarkFailTogether(b *testing.B) {
	const requests = 1000
	f, api, a := newFile(), &instant{}, &agent{}
	generation := uint64(1)
	put := func(n uint64) { f.put(b, fmt.Sprint("key", n), n) }
	a.refresh = func(context.Context) (sidecar.Refreshed, error) {
		put(generation + 1)
		return sidecar.Refreshed{Outcome: sidecar.Published}, nil
	}
	c := client.New(client.Config{Keys: f, Backend: api, Agent: a})
	stop := run(c)
	defer stop()
	put(generation)
	eventually(b, "the key serves", func() bool { return c.Status().Generation == generation })
	for b.Loop() {
		api.revoke(fmt.Sprint("key", generation), requests)
		var group sync.WaitGroup
		for range requests {
			group.Go(func() {
				if answer, err := c.Generate(b.Context(), prompt); err != nil || answer.Generation != generation+1 {
					b.Errorf("%+v, %v", answer, err)
				}
			})
		}
		group.Wait()
		generation++
	}
	s := c.Status()
	if s.Refreshes != generation-1 || s.Rescued != requests*s.Refreshes {
		b.Errorf("%d refreshes in %d rounds, %d requests rescued", s.Refreshes, generation-1, s.Rescued)
	}
}
