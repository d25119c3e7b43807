package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/keyturn/keyturn/agent/internal/control"
	"github.com/keyturn/keyturn/agent/internal/gate"
	"github.com/keyturn/keyturn/agent/internal/observe"
	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/sink"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

const (
	// gcPercent trades CPU, of which the agent needs next to none, for memory, which every pod pays for.
	gcPercent = 25
	// farewell bounds what an agent that was told to stop still does over the network.
	farewell = 3 * time.Second
)

// untilToldToStop returns a context that ends with the first signal to stop; a second one kills. Under nohup(1) the end of the
// terminal is no such signal.
func untilToldToStop() context.Context {
	told := make(chan os.Signal, 1)
	signal.Notify(told, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(told, syscall.SIGHUP)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		<-told
		signal.Stop(told) // first: whoever sees that the end has begun can cut it short
		cancel()
	}()
	return ctx
}

// serve renders until ctx ends. Its errors are about this machine or the configuration, never about the store.
func serve(ctx context.Context, c Config) (err error) {
	dir, err := sink.Open(c.Dir, sink.Options{AllowDisk: c.AllowDisk})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	listener, err := net.Listen("tcp", c.Listen)
	if err != nil {
		return listenError(err)
	}
	memory, err := c.harden(dir)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	loop := turn.New(turn.Config{
		Source: c.Store, Gate: gate.New(c.Gemini, c.Validate...), Sink: dir, Secrets: c.Secrets, Poll: c.Poll, Memory: memory, Log: c.Log,
	})
	socket := control.New(loop, c.Log)
	metrics := observe.Registry(observe.Facts{
		Status: loop.Status, TokenExpiry: c.Store.TokenExpiry, SkipVerify: c.SkipVerify, Build: build(),
		IgnoredAcks: socket.IgnoredAcks, RefusedPeers: socket.RefusedPeers,
	})
	c.Log.Info("started", "version", build().Version, "files", len(c.Secrets), "dir", dir.Path(), "listen", listener.Addr().String())
	group, running := errgroup.WithContext(ctx)
	group.Go(func() error {
		loop.Run(running)
		return leave(ctx, dir, c) // at once: who is slow to take an answer doesn't keep the files
	})
	group.Go(func() error { return observe.Serve(running, listener, observe.Handler(loop.Status, metrics), c.Log) })
	group.Go(func() error { return socket.Serve(running, filepath.Join(dir.Path(), socketName), dir.InPlace) })
	err = group.Wait()
	c.Log.Info("stopped")
	return err
}

// harden does what keeps the secrets from others on this machine, before the first byte from the network is read: memory that
// isn't swapped, and a process that can do little. What can't be done is one line of the log each.
func (c Config) harden(dir *sink.Dir) (*secret.Memory, error) {
	if reason := dir.Swappable(); reason != "" {
		c.Log.Warn("the rendered files may be swapped out to a disk", "reason", reason)
	}
	memory, err := secret.NewMemory()
	if err != nil {
		c.Log.Warn("the values in force may be swapped out to a disk", "reason", err.Error())
		memory = nil
	}
	missing, err := c.Confine.apply(dir.Path())
	if err != nil {
		return nil, err
	}
	if len(missing) > 0 {
		c.Log.Warn("the agent is not confined in every way", "missing", strings.Join(missing, "; "))
	}
	return memory, nil
}

// listenError doesn't quote the address, since it is a value of the configuration.
func listenError(err error) error {
	if code, ok := errors.AsType[syscall.Errno](err); ok {
		return fmt.Errorf("AGENT_LISTEN can't be listened on: %w: free the port, or choose another", code)
	}
	return errors.New("AGENT_LISTEN names a host that is no address of this machine: write 127.0.0.1:PORT, or :PORT for all of them")
}

// leave does with the files what AGENT_ON_EXIT says if the agent was told to stop, and gives its token back. One that fails
// leaves the files: they are the last good ones, and the next agent adopts them.
func leave(stopped context.Context, dir *sink.Dir, c Config) (err error) {
	if stopped.Err() != nil && !c.KeepOnExit {
		names := []string{socketName} // first: whoever connects from now on would be told of files that are gone
		for _, s := range c.Secrets {
			names = append(names, s.File)
		}
		err = dir.Remove(names...)
	}
	bounded, cancel := context.WithTimeout(context.WithoutCancel(stopped), farewell)
	defer cancel()
	c.Store.Close(bounded)
	return err
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
