package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
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

// serve answers until ctx ends. Its errors are about this machine or the configuration, never about the key or Gemini.
func serve(ctx context.Context, c Config, log *slog.Logger) (err error) {
	backend, err := gemini.New(ctx, c.Gemini)
	if err != nil {
		return usageError{err}
	}
	defer func() { err = errors.Join(err, backend.Close()) }()
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("APP_LISTEN: %w: free the port or choose another", err)
	}
	keyturn := client.New(c.client(backend, log))
	service := server.New(server.Config{
		Client: keyturn, Build: build(), Log: log, Call: call, Write: write, Linger: linger, Drain: drain,
	})
	log.Info("started", "version", build().Version, "file", c.KeyFile, "sdk", c.Gemini.SDK, "model", c.Gemini.Model,
		"listen", listener.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	serving, stop := context.WithCancel(context.WithoutCancel(ctx)) // the last requests still need their client
	defer stop()
	group.Go(func() error { return keyturn.Run(serving) })
	group.Go(func() error { defer stop(); return service.Serve(ctx, listener) })
	err = group.Wait()
	log.Info("stopped")
	return err
}

// client describes the client: where its keys come from, and which agent it talks to.
func (c Config) client(backend *gemini.Backend, log *slog.Logger) client.Config {
	d := client.Config{Keys: client.Static(c.Static), Backend: backend, Log: log}
	if c.KeyFile != "" {
		d.Keys = keyfile.New(keyfile.Config{Path: c.KeyFile, Log: log})
	}
	if c.Socket != "" {
		d.Agent = sidecar.New(c.Socket, c.KeyFile)
	}
	return d
}

func (c Config) logger(w io.Writer, notes []string) *slog.Logger {
	options := &slog.HandlerOptions{Level: c.LogLevel}
	var handler slog.Handler = slog.NewJSONHandler(w, options)
	if c.LogText {
		handler = slog.NewTextHandler(w, options)
	}
	log := slog.New(handler)
	for _, note := range notes {
		log.Warn(note)
	}
	return log
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
