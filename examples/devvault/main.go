// Command devvault prints the path of a real HashiCorp Vault. The first time it builds one from source, with the Go module
// proxy as its only need:
//
//	vault=$(go -C examples/devvault run .)
//
// The version is the one in go.mod. The binary stays in the user's cache directory, under a name with that version, and is
// found there from then on. Runs at the same time build it once, and a run that is interrupted leaves nothing behind.
//
// It is a module of its own to keep the 500 modules that Vault requires out of the main one's go.mod.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/term"
)

func main() {
	runtime.LockOSThread() // the kernel interrupts the build when the thread that started it ends
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	path, err := run(ctx, os.Stderr)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "devvault: %v\n", err)
		os.Exit(1)
	}
	fmt.Println(path)
}

func run(ctx context.Context, stderr *os.File) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("there is no place for the binary: %w", err)
	}
	b := builder{
		goTool:   "go",
		dir:      filepath.Join(cache, "keyturn"),
		progress: &progress{w: stderr, terminal: term.IsTerminal(int(stderr.Fd()))},
	}
	return b.binary(ctx)
}
