package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os/signal"
	"sync"
	"syscall"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/app/sidecar"
)

// A program whose key the agent renders. Nothing in it ends, or is made anew, when the key changes.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	backend, err := gemini.New(ctx, gemini.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer backend.Close()

	const file = "/run/keyturn/keys/gemini-api-key"
	c := client.New(client.Config{
		Keys:    keyfile.New(keyfile.Config{Path: file}),
		Backend: backend,
		Agent:   sidecar.New("/run/keyturn/keys/agent.sock", file),
	})
	var running sync.WaitGroup
	running.Go(func() { c.Run(ctx) })
	defer running.Wait()

	for piece, err := range c.Stream(ctx, "Why is the sky blue?") {
		switch {
		case errors.Is(err, client.ErrNoKey), errors.Is(err, client.ErrRefused):
			log.Print("no key works at the moment: ", err) // it heals by itself
		case err != nil:
			log.Print(err) // about the request, the quota or Google: the key is not to blame
		default:
			fmt.Print(piece.Text)
		}
	}
	stop()
}
