package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/sync/errgroup"

	"github.com/keyturn/keyturn/agent/internal/control"
	"github.com/keyturn/keyturn/agent/internal/gate"
	"github.com/keyturn/keyturn/agent/internal/observe"
	"github.com/keyturn/keyturn/agent/internal/sink"
	"github.com/keyturn/keyturn/agent/internal/source/vault"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

const (
	// gcPercent trades CPU, of which the agent needs next to none, for memory, which every pod pays for.
	gcPercent = 25
	// connections bounds those who watch.
	connections = 32
	// farewell bounds what an agent that was told to stop still does over the network.
	farewell = 3 * time.Second
)

// serve renders until ctx ends. Its errors are about this machine or the configuration, never about the store.
func serve(ctx context.Context, c Config, log *slog.Logger) (err error) {
	dir, err := sink.Open(c.Dir, sink.Options{AllowDisk: c.AllowDisk})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, leave(dir, c)) }()
	store, err := vault.New(c.Vault, log)
	if err != nil {
		return usageError{err}
	}
	defer func() {
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		store.Close(bounded)
	}()
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return fmt.Errorf("AGENT_LISTEN: %w: free the port or choose another", err)
	}
	defer c.Gemini.Close()
	loop := turn.New(turn.Config{
		Source: store, Gate: gate.New(c.Gemini, c.Validate...), Sink: dir, Secrets: c.Secrets, Poll: c.Poll, Log: log,
	})
	socket := control.New(loop, log)
	metrics := observe.Registry(observe.Facts{
		Status: loop.Status, TokenExpiry: store.TokenExpiry, SkipVerify: c.SkipVerify, Build: build(),
		IgnoredAcks: socket.IgnoredAcks, RefusedPeers: socket.RefusedPeers,
	})
	log.Info("started", "version", build().Version, "files", len(c.Secrets), "dir", dir.Path(), "listen", listener.Addr().String())
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { loop.Run(ctx); return nil })
	group.Go(func() error { return answer(ctx, listener, observe.Handler(loop.Status, metrics)) })
	group.Go(func() error { return socket.Serve(ctx, filepath.Join(dir.Path(), socketName)) })
	err = group.Wait()
	log.Info("stopped")
	return err
}

// answer serves h until ctx ends.
func answer(ctx context.Context, l net.Listener, h http.Handler) error {
	server := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
	}
	ctx, cancel := context.WithCancel(ctx)
	var stopping sync.WaitGroup
	stopping.Go(func() {
		<-ctx.Done()
		bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), farewell)
		defer cancel()
		if server.Shutdown(bounded) != nil {
			server.Close()
		}
	})
	err := server.Serve(netutil.LimitListener(l, connections))
	cancel()
	stopping.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// leave does with the files what AGENT_ON_EXIT says.
func leave(dir *sink.Dir, c Config) error {
	var err error
	if !c.KeepOnExit {
		for _, s := range c.Secrets {
			err = errors.Join(err, dir.Remove(s.File))
		}
	}
	return errors.Join(err, dir.Close())
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

func build() observe.Build {
	b := observe.Build{Version: version, Commit: commit, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok && b.Commit == "" {
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Commit = s.Value
			}
		}
	}
	return b
}
