package client_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/app/sidecar"
)

func TestAConfigThatCanNeverServeIsAPanicOfNew(t *testing.T) {
	for _, config := range []client.Config{{}, {Keys: newFile()}, {Backend: newAPI()}} {
		func() {
			defer func() {
				if text, ok := recover().(string); !ok || text == "" {
					t.Errorf("%+v was taken", config)
				}
			}()
			client.New(config)
		}()
	}
}

// A program that reads its socket's path from its configuration may have made no agent.
func TestAnAgentThatWasNeverMadeIsNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file, api := newFile(), newAPI()
		c := client.New(client.Config{Keys: file, Backend: api, Agent: (*sidecar.Agent)(nil)})
		stop := run(c)
		file.put(t, "one", 1)
		api.refuse(invalid, "one")
		c.Generate(t.Context(), prompt)
		time.Sleep(time.Minute)
		if s := c.Status(); s.Refreshes != 0 {
			t.Errorf("%+v", s)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

// Nobody probes a key then, so a refusal must not be for ever.
func TestAfterRunARefusalIsOneRequestsOwn(t *testing.T) {
	for name, before := range map[string]bool{"of a key that was refused before": true, "of one that was not": false} {
		t.Run(name, func(t *testing.T) {
			story(t, func(r *rig) {
				r.put("one", 1)
				r.put("two", 2)
				r.api.refuse(invalid, "one", "two")
				if before {
					r.askRefused()
				}
				r.stop()
				ended := r.elapsed()
				for range 2 {
					r.askRefused()
				}
				r.api.accept("two")
				r.ask(2)
				if r.api.refuse(invalid, "two"); !before { // otherwise it has been dropped
					r.api.accept("one")
					r.ask(1)
				}
				r.wantElapsed(ended)
				if s := r.Status(); s.Draining != 0 {
					r.Errorf("%+v; a lease is still held", s)
				}
			})
		})
	}
}

func TestWhoWaitsForAKeyWhenRunEndsWaitsNoLonger(t *testing.T) {
	story(t, func(r *rig) {
		r.put("one", 1)
		r.api.refuse(invalid, "one")
		refused := r.asking(r.Context())
		r.sleep(time.Second)
		r.stop()
		if o := <-refused; !errors.Is(o.err, client.ErrRefused) || !errors.Is(o.err, invalid) || o.at != time.Second {
			r.Errorf("%+v", o)
		}
	})
	story(t, func(r *rig) {
		first := r.asking(r.Context())
		r.stop()
		if o := <-first; o.err != client.ErrNoKey || o.at != 0 {
			r.Errorf("%+v", o)
		}
	})
}

type broken struct{}

func (broken) Client(keyfile.Key) gemini.Client { panic("no client for this key") }

// Otherwise the program would go on, with a key that is never replaced.
func TestAPanicWhileAKeyIsTakenComesOutOfRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := newFile()
		c := client.New(client.Config{Keys: file, Backend: broken{}, Agent: &agent{}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		ended := make(chan any, 1)
		go func() {
			defer func() { ended <- recover() }()
			c.Run(ctx)
		}()
		file.put(t, "one", 1)
		synctest.Wait()
		select {
		case p := <-ended:
			if p != "no client for this key" {
				t.Errorf("it ended with %v", p)
			}
		default:
			t.Error("Run goes on")
		}
	})
}
