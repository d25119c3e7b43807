package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/examples/quickstart/internal/drill"
	"github.com/keyturn/keyturn/examples/quickstart/internal/report"
	"github.com/keyturn/keyturn/examples/quickstart/internal/stage"
)

const demoUsage = `usage: quickstart [demo] [flags]
       quickstart drill [flags]   rotate hundreds of times, and report; see quickstart drill -h

Starts Vault in dev mode, a stand-in for the Gemini API, keyturn-agent and keyturn-app, asks for text without a pause, and
rotates the key meanwhile. Takes half a minute. Exit status 1 if a request failed.

  VAULT_BIN             a Vault to run; otherwise the one on PATH, otherwise one is built, which takes minutes once
  GEMINI_API_KEYS_FILE  a file with two real keys, one a line: ask the real API with them in turn, a few times
  GOOGLE_GEMINI_BASE_URL, APP_MODEL, HTTPS_PROXY, NO_PROXY
                        where and what to ask then, and through which proxy
  XDG_RUNTIME_DIR       a directory in memory for the key; otherwise /dev/shm

`

func runDemo(ctx context.Context, args []string, s *screen) error {
	f := flag.NewFlagSet("demo", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), demoUsage)
		f.PrintDefaults()
	}
	c := drill.Config{Weather: drill.Revoked, Rate: 100, Streams: 0.2, Interval: 3 * time.Second, Poll: 15 * time.Second}
	var o stage.Options
	f.StringVar(&c.SDK, "sdk", sdks()[0], "the library that calls Gemini: "+strings.Join(sdks(), " or "))
	f.IntVar(&c.Rotations, "rotations", 6, "how often to rotate")
	stageFlags(f, &o)
	if err := parse(f, args, s); err != nil {
		return err
	}
	if err := known("-sdk", c.SDK, sdks()); err != nil {
		return usageError{err}
	}
	if c.Rotations < 1 || c.Rotations > 100 {
		return usageError{errors.New("-rotations is not between 1 and 100: see quickstart drill for more")}
	}
	if path := os.Getenv("GEMINI_API_KEYS_FILE"); path != "" {
		real, err := realAPI(path)
		if err != nil {
			return usageError{err}
		}
		// Few requests, since a free tier allows ten a minute; nothing can be revoked, so the poll must find the key.
		c.Real, c.Weather, c.Rate, c.Streams, c.Interval, c.Poll = real, drill.Overlap, 1, 0.5, 2*time.Second, time.Second
		c.Rotations = min(c.Rotations, 2)
	}
	return demo(ctx, c, o, s)
}

// demo shows one run, and sums it up.
func demo(ctx context.Context, c drill.Config, o stage.Options, s *screen) (err error) {
	s.Say("%s", s.style(bold, "keyturn: a key rotates, and no request notices"))
	s.Say("")
	o.Progress = s
	stage, err := stage.Open(ctx, o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	if err := introduce(ctx, c, stage, s); err != nil {
		return err
	}
	story := &story{screen: s}
	c.Watch = story.watch
	run, err := drill.Run(ctx, stage, c)
	s.clear()
	if err != nil {
		return err
	}
	sumUp(run, s)
	if !run.OK() {
		return errFailed
	}
	return nil
}

func introduce(ctx context.Context, c drill.Config, stage *stage.Stage, s *screen) error {
	version, err := stage.Vault.Version(ctx)
	if err != nil {
		return err
	}
	gemini, revokes := "a stand-in on loopback (GEMINI_API_KEYS_FILE takes you to the real API)", "the old key is revoked in the instant in which Vault has the new one"
	if c.Real != nil {
		gemini, revokes = "the real API", "two keys take turns; none is revoked"
	}
	s.Say("")
	s.Say("  Vault    %s in dev mode, over TLS; the agent's AppRole may read %s and nothing else", version, stage.Vault.Secret())
	s.Say("  Gemini   %s", gemini)
	s.Say("  agent    reads Vault every %v, or when the app's key is refused; renders it to a 0600 file below %s", c.Poll, stage.Dir)
	s.Say("  app      asks through %s, with the key in that file", c.SDK)
	s.Say("  load     %d requests a second, %.0f %% of them streamed", c.Rate, 100*c.Streams)
	s.Say("  rotation %s", revokes)
	s.Say("")
	return nil
}

func sumUp(run report.Run, s *screen) {
	s.Say("")
	verdict := s.style(green, "0 failed")
	if run.Requests.Failed > 0 {
		verdict = s.style(red, fmt.Sprintf("%d failed", run.Requests.Failed))
	}
	s.Say("  %d requests, %d of them streamed: %s, %d rescued on another key", run.Requests.Total, run.Requests.Streams, verdict, run.Requests.Rescued)
	for _, f := range run.Failures {
		s.Say("    %d failed: %s", f.Count, f.Reason)
	}
	if run.Error != "" {
		s.Say("  broken off: %s", run.Error)
	}
	if run.Swap.Count > 0 {
		s.Say("  %d rotations: the new key in use %.1f ms after the write (median), %.1f ms (slowest)", run.Swap.Count, run.Swap.P50, run.Swap.Max)
	}
	if n := len(run.Processes); n > 0 {
		s.Say("  agent %.0f MiB, app %.0f MiB resident; nothing was restarted", run.Processes[n-1].AgentMiB, run.Processes[n-1].AppMiB)
	}
}
