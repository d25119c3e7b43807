package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/internal/server"
	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/app/sidecar"
)

const (
	// call bounds one request or stream: models that think for minutes are waited for.
	call = 10 * time.Minute
	// write bounds how long a caller may not read.
	write = 30 * time.Second
	// linger and drain are together less than the 30 s that Kubernetes gives a pod to end.
	linger = 2 * time.Second
	drain  = 25 * time.Second
)

// untilToldToStop returns a context that ends with the first signal to stop; a second one kills.
func untilToldToStop() context.Context {
	told := make(chan os.Signal, 1)
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-told
		signal.Stop(told) // first: whoever sees that the end has begun can cut it short
		cancel()
	}()
	return ctx
}

// serve answers until ctx ends. Its errors are about this machine or the configuration, never about the key or Gemini.
func serve(ctx context.Context, c Config) (err error) {
	backend, err := gemini.New(ctx, c.Gemini)
	if err != nil {
		return usageError{err}
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return listenError(err)
	}
	keyturn := client.New(c.client(backend))
	service := server.New(server.Config{
		Client: keyturn, Build: build(), Log: c.Log, Call: call, Write: write, Linger: linger, Drain: drain,
	})
	c.Log.Info("started", "version", build().Version, "file", c.KeyFile, "sdk", c.Gemini.SDK, "model", c.Gemini.Model,
		"listen", listener.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // the last requests still need their client
	defer stop()
	group.Go(func() error { return keyturn.Run(serving) })
	group.Go(func() error { defer stop(); return service.Serve(ctx, listener) })
	err = group.Wait()
	c.Log.Info("stopped")
	return err
}

// listenError doesn't quote the address, since it is a value of the configuration.
func listenError(err error) error {
	if code, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("APP_LISTEN can't be listened on: %w: free the port, or choose another", code)
	}
	return errors.New("APP_LISTEN names a host that is no address of this machine: write 127.0.0.1:PORT, or :PORT for all of them")
}

// client describes the client: where its keys come from, and which agent it talks to.
func (c Config) client(backend *gemini.Backend) client.Config {
	d := client.Config{Keys: client.Static(c.Static), Backend: backend, Log: c.Log}
	if c.KeyFile != "" {
		d.Keys = keyfile.New(keyfile.Config{Path: c.KeyFile, Log: c.Log})
	}
	if c.Socket != "" {
		d.Agent = sidecar.New(c.Socket, c.KeyFile)
	}
	return d
}

func build() server.Build {
	b := server.Build{Version: version, Commit: commit, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok && b.Commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
	}
	return b
}
