// Command quickstart shows a key rotation, for real: it starts a Vault, a stand-in for the Gemini API, the agent and the
// app, asks for text without a pause, and rotates the key meanwhile. "quickstart drill" does so at length and reports.
//
//	go run ./examples/quickstart
//	go run ./examples/quickstart drill -json drill.json -plot drill.svg
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Exit codes.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// usageError marks what the caller mends by calling otherwise.
type usageError struct{ error }

// errFailed says that the run failed, of which the summary has told already.
var errFailed = errors.New("not every request was answered, or a new key never came into use")

func main() {
	if err := endWithGoRun(); err != nil {
		os.Exit(exitCode(err, os.Stderr))
	}
	// A second signal doesn't kill: what runs by then is the removal of processes and files, which is bounded.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	// Nor does SIGPIPE, which comes when nobody reads the output any more: the screen sees that, and ends the run.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	err := run(ctx, os.Args[1:], os.Stdout)
	if ctx.Err() != nil {
		err = fmt.Errorf("interrupted (%w)", err)
	}
	stop()
	os.Exit(exitCode(err, os.Stderr))
}

func exitCode(err error, stderr io.Writer) int {
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return exitDone
	}
	fmt.Fprintf(stderr, "quickstart: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailed
}

func run(ctx context.Context, args []string, stdout io.Writer) error {
	command := "demo"
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	screen := newScreen(stdout, cancel)
	switch command {
	case "demo":
		return runDemo(ctx, args, screen)
	case "drill":
		return runDrill(ctx, args, screen)
	}
	return usageError{fmt.Errorf("there is no command %q: it is demo (the default) or drill", command)}
}

// parse parses args, which must be flags alone.
func parse(f *flag.FlagSet, args []string, w io.Writer) error {
	f.SetOutput(w)
	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return usageError{err}
	}
	if f.NArg() > 0 {
		return usageError{fmt.Errorf("%q is no flag: see quickstart %s -h", f.Arg(0), f.Name())}
	}
	return nil
}

// endWithGoRun asks for a SIGTERM when the go command that runs this program dies: it hands on no signal but Ctrl-C.
func endWithGoRun() error {
	parent := os.Getppid()
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", parent))
	if err != nil || filepath.Base(exe) != "go" {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(syscall.SIGTERM), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != parent {
		return errors.New("the go command that ran this has ended")
	}
	return nil
}
