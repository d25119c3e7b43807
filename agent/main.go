// Command keyturn-agent takes secrets from HashiCorp Vault and renders each to a file that only its owner can read, in
// memory. "keyturn-agent -h" lists its subcommands and every variable that it reads.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// version and commit are stamped by the build: -ldflags "-X main.version=v1.2.3 -X main.commit=abcdef".
var version, commit = "devel", ""

// Exit codes.
const exitDone, exitFailed, exitUsage = 0, 1, 2

// usageError marks errors that the caller mends by calling or configuring the agent otherwise.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	signal.Ignore(syscall.SIGPIPE) // a log that nobody reads any more ends nothing
	err := run(untilToldToStop(), os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	os.Exit(exitCode(err, os.Stderr))
}

func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return exitDone
	}
	fmt.Fprintf(stderr, "keyturn-agent: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) error {
	command := "run"
	if len(args) > 0 {
		command = args[0]
	}
	asJSON := command == "status" && len(args) == 2 && args[1] == "-json"
	wait, waits := patience(args)
	switch command {
	case "-h", "-help", "--help", "help":
		return usage(stdout)
	case "version", "-version", "--version":
		_, err := fmt.Fprintf(stdout, "keyturn-agent %s %s %s\n", build().Version, build().Commit, build().Go)
		return err
	case "run", "health", "status":
		if len(args) > 1 && !asJSON && !waits {
			return usageError{fmt.Errorf("%s doesn't take these arguments: see keyturn-agent -h", command)}
		}
	default:
		return usageError{errors.New("there is no such command: see keyturn-agent -h")}
	}
	switch command {
	case "health":
		return health(ctx, wait)
	case "status":
		return status(ctx, asJSON, stdout)
	}
	debug.SetGCPercent(gcPercent)
	c, note, err := load(environ, stderr)
	if err != nil {
		return usageError{err}
	}
	note()
	return serve(ctx, c)
}
