// Command standin is the Gemini API of the local overlay: it accepts every key that begins with "local-" and refuses any
// other as Google would. "standin health" asks a running one whether it answers.
package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
)

const (
	address  = ":8080"
	prefix   = "local-"
	farewell = 5 * time.Second
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	command := run
	if len(os.Args) > 1 && os.Args[1] == "health" {
		command = health
	}
	err := command(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "standin: %v\n", err)
		os.Exit(1)
	}
}

// run serves until ctx ends, and lets requests that run finish.
func run(ctx context.Context) error {
	server := &http.Server{Addr: address, Handler: local(geminitest.New()), ReadHeaderTimeout: 10 * time.Second}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
	defer cancel()
	err := server.Shutdown(bounded)
	if serving := <-failed; !errors.Is(serving, http.ErrServerClosed) {
		err = errors.Join(err, serving)
	}
	return err
}

// local makes api accept each key with the prefix when it first comes.
func local(api *geminitest.Server) http.Handler {
	handler := api.Handler()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if key := r.Header.Get("X-Goog-Api-Key"); strings.HasPrefix(key, prefix) {
			api.Add(key)
		}
		handler.ServeHTTP(w, r)
	})
}

// health succeeds if a stand-in answers, even if only to say that there is no key.
func health(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, farewell)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://127.0.0.1"+address+"/v1beta/models", nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	return response.Body.Close()
}
