package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/examples/quickstart/internal/drill"
	"github.com/keyturn/keyturn/examples/quickstart/internal/report"
	"github.com/keyturn/keyturn/examples/quickstart/internal/stage"
)

const drillUsage = `usage: quickstart drill [flags]

Rotates the key under load, in four weathers, and reports what became of each request:

  overlap  the old key lives on
  delayed  the new key is refused for its first seconds, every other time by half of the front ends only
  outage   Vault is gone as soon as it has answered the write, and back some seconds later; every other time it is sealed
  revoked  the old key is revoked in the instant in which Vault has answered the write

The default is the full drill, some 15 minutes. Exit status 1 if a request failed, or a new key never came into use. A
stream counts as answered only if it ended with its done event.

`

// drillConfig is what the flags say.
type drillConfig struct {
	sdks, weathers string
	rotations      int
	rate           int
	streams        float64
	interval       time.Duration
	poll           time.Duration
	delay, outage  time.Duration
	latency        bool
	json, plot     string
	stage          stage.Options
}

func runDrill(ctx context.Context, args []string, s *screen) error {
	f := flag.NewFlagSet("drill", flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprint(f.Output(), drillUsage)
		f.PrintDefaults()
	}
	var c drillConfig
	f.StringVar(&c.sdks, "sdk", strings.Join(sdks(), ","), "the `names` of the libraries that call Gemini")
	f.StringVar(&c.weathers, "weather", strings.Join(weathers(), ","), "the `names` of the weathers")
	f.IntVar(&c.rotations, "rotations", 500, "rotations when revoked; at most 20 when overlap, 6 when delayed or outage, which take seconds each")
	f.IntVar(&c.rate, "rate", 500, "requests a second")
	f.Float64Var(&c.streams, "streams", 0.2, "the `share` of them that are streamed, from 0 to 1")
	f.DurationVar(&c.interval, "interval", 420*time.Millisecond, "mean time from when a new key is in use to the next rotation, when revoked; 1s in the other weathers")
	f.DurationVar(&c.poll, "poll", 15*time.Second, "the agent's poll interval when revoked; 1s in the other weathers")
	f.DurationVar(&c.delay, "delay", 5*time.Second, "how long a new key is refused when delayed")
	f.DurationVar(&c.outage, "outage", 3*time.Second, "how long Vault is gone in an outage")
	f.BoolVar(&c.latency, "latency", true, "measure latency too: revoked, at most 200 rotations under 225 unary requests a second")
	f.StringVar(&c.json, "json", "", "write the report to this `file`, as JSON")
	f.StringVar(&c.plot, "plot", "", "draw it to this `file`: .svg or .png")
	stageFlags(f, &c.stage)
	if err := parse(f, args, s); err != nil {
		return err
	}
	runs, err := c.plan()
	if err != nil {
		return usageError{err}
	}
	return c.run(ctx, runs, s)
}

// plan returns the runs, or what is wrong with the flags.
func (c drillConfig) plan() ([]drill.Config, error) {
	chosen, kinds := strings.Split(c.sdks, ","), strings.Split(c.weathers, ",")
	err := errors.Join(known("-sdk", c.sdks, sdks()), known("-weather", c.weathers, weathers()))
	switch {
	case c.rotations < 1 || c.rotations > 100_000:
		err = errors.Join(err, errors.New("-rotations is not between 1 and 100000"))
	case c.rate < 1 || c.rate > 5000:
		err = errors.Join(err, errors.New("-rate is not between 1 and 5000"))
	case c.streams < 0 || c.streams > 1:
		err = errors.Join(err, errors.New("-streams is not between 0 and 1"))
	case c.interval < 0 || c.poll < 100*time.Millisecond:
		err = errors.Join(err, errors.New("-interval is negative, or -poll is less than 100ms"))
	case min(c.delay, c.outage) < 0 || max(c.delay, c.outage) > time.Minute:
		err = errors.Join(err, errors.New("-delay or -outage is not between 0 and 1m"))
	case c.plot != "" && !slices.Contains([]string{".svg", ".png"}, filepath.Ext(c.plot)):
		err = errors.Join(err, errors.New("-plot ends neither with .svg nor with .png"))
	}
	if err != nil {
		return nil, err
	}
	var runs []drill.Config
	for _, weather := range kinds {
		for _, sdk := range chosen {
			runs = append(runs, c.configure(drill.Weather(weather), sdk))
		}
	}
	if c.latency && slices.Contains(kinds, string(drill.Revoked)) {
		for _, sdk := range chosen {
			latency := c.configure(drill.Revoked, sdk)
			latency.Rotations, latency.Rate, latency.Streams = min(c.rotations, 200), 225, 0
			runs = append(runs, latency)
		}
	}
	return runs, nil
}

func (c drillConfig) configure(weather drill.Weather, sdk string) drill.Config {
	d := drill.Config{Weather: weather, SDK: sdk, Rate: c.rate, Streams: c.streams, Rotations: c.rotations, Interval: c.interval,
		Poll: c.poll, Delay: c.delay, Outage: c.outage}
	switch weather {
	case drill.Overlap:
		d.Rotations, d.Interval, d.Poll = min(c.rotations, 20), time.Second, time.Second
	case drill.Delayed, drill.Outage:
		d.Rotations, d.Interval, d.Poll = min(c.rotations, 6), time.Second, time.Second
	}
	return d
}

// run carries out the runs, and reports.
func (c drillConfig) run(ctx context.Context, runs []drill.Config, s *screen) (err error) {
	c.stage.Progress = s
	for _, file := range []string{c.json, c.plot} { // now rather than after the last run
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
	}
	painter, err := newPainter(ctx, c.plot, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, painter.close()) }()
	stage, err := stage.Open(ctx, c.stage)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stage.Close()) }()
	r := report.Report{Started: time.Now(), Machine: machine()}
	if r.Vault, err = stage.Vault.Version(ctx); err != nil {
		return err
	}
	for i, run := range runs {
		run.Watch = progress(run, fmt.Sprintf("%d of %d", i+1, len(runs)), s)
		result, err := drill.Run(ctx, stage, run)
		s.clear()
		if err != nil {
			return fmt.Errorf("%s, %s: %w", run.Weather, run.SDK, err)
		}
		r.Runs = append(r.Runs, result)
		s.Say("%-8s %-16s %3.0f s  %6d requests, %d failed, %d rotations", result.Weather, result.SDK, result.Seconds,
			result.Requests.Total, result.Requests.Failed, len(result.Rotations))
	}
	r.Finish(time.Now())
	s.Say("")
	return errors.Join(r.Table(s), c.save(ctx, r, painter), verdict(r))
}

func verdict(r report.Report) error {
	if !r.Passed {
		return errFailed
	}
	return nil
}

// progress shows on a terminal how far a run is.
func progress(c drill.Config, which string, s *screen) func(drill.Moment) {
	rotation, swap := 0, time.Duration(0)
	return func(m drill.Moment) {
		if m.Kind == drill.InUse {
			rotation, swap = m.Rotation, m.Swap
		}
		failed := styled{plain, "0 failed"}
		if m.Failed > 0 {
			failed = styled{red, fmt.Sprintf("%d failed", m.Failed)}
		}
		s.Status(styled{faint, which + "  "}, styled{bold, fmt.Sprintf("%s, %s", c.Weather, c.SDK)},
			styled{plain, fmt.Sprintf("  rotation %d of %d  last swap %s  %d answered, ", rotation, c.Rotations, milliseconds(swap), m.Answered)}, failed)
	}
}

// save writes the report to where the flags say.
func (c drillConfig) save(ctx context.Context, r report.Report, painter *painter) error {
	if c.json != "" {
		file, err := os.Create(c.json)
		if err != nil {
			return err
		}
		if err := errors.Join(r.Write(file), file.Close()); err != nil {
			return err
		}
	}
	return painter.paint(ctx, r, c.plot)
}

// machine says where this runs.
func machine() report.Machine {
	m := report.Machine{Cores: runtime.NumCPU(), OS: runtime.GOOS + "/" + runtime.GOARCH, Go: runtime.Version()}
	info, _ := os.ReadFile("/proc/cpuinfo") // a machine without it has no name here
	for line := range strings.Lines(string(info)) {
		if name, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}
