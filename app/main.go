// Command keyturn-app answers prompts over HTTP through the Gemini API, with a key that it watches in a file and changes
// under requests in flight. "keyturn-app -h" lists its subcommands and every variable that it reads.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

// version and commit are stamped by the build: -ldflags "-X main.version=v1.2.3 -X main.commit=abcdef".
var version, commit = "devel", ""

// Exit codes.
const exitDone, exitFailed, exitUsage = 0, 1, 2

// usageError marks errors that the caller mends by calling or configuring the app otherwise.
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
	fmt.Fprintf(stderr, "keyturn-app: %v\n", err)
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
	switch command {
	case "-h", "-help", "--help", "help":
		return usage(stdout)
	case "version", "-version", "--version":
		_, err := fmt.Fprintf(stdout, "keyturn-app %s %s %s\n", build().Version, build().Commit, build().Go)
		return err
	case "run", "health":
		if len(args) > 1 {
			return usageError{fmt.Errorf("%s takes no arguments: see keyturn-app -h", command)}
		}
	default:
		return usageError{errors.New("there is no such command: see keyturn-app -h")}
	}
	c, note, err := load(environ, stderr)
	switch {
	case err != nil:
		return usageError{err}
	case command == "health":
		return health(ctx, c)
	}
	note()
	return serve(ctx, c)
}
