package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// format is the number of the JSON format that this draws.
const format = 1

// report is what is drawn of a report; examples/quickstart/internal/report says what each field means.
type report struct {
	Format  int
	Started time.Time
	Seconds float64
	Machine struct {
		CPU   string
		Cores int
	}
	Vault  string
	Passed bool
	Runs   []run
}

type run struct {
	Weather string
	SDK     string
	Load    struct {
		Rate    int     `json:"requests_per_second"`
		Streams float64 `json:"stream_share"`
		Poll    float64 `json:"poll_seconds"`
	}
	Seconds  float64
	Requests struct{ Total, Streams, Rescued, Failed int }
	Error    string
	Swap     percentiles `json:"swap_ms"`

	Processes []struct {
		Agent float64 `json:"agent_mib"`
		App   float64 `json:"app_mib"`
	}
	Rotations []rotation
	Bucket    float64 `json:"bucket_seconds"`
	Timeline  []bucket
	Excerpt   []request
}

// memory returns the most that each of the processes had in RAM, in MiB.
func (r run) memory() (agent, app float64) {
	for _, p := range r.Processes {
		agent, app = max(agent, p.Agent), max(app, p.App)
	}
	return agent, app
}

type percentiles struct {
	Count         int
	P50, P99, Max float64
}

type rotation struct {
	Written float64 `json:"written_at"`
	Used    float64 `json:"used_at"`
}

type bucket struct {
	At          float64
	Generations []struct {
		Generation uint64
		Requests   int
	}
	Rescued, Failed int
	Latency         percentiles `json:"latency_ms"`
}

type request struct {
	At                      float64
	Latency                 float64 `json:"latency_ms"`
	Generation              uint64
	Stream, Rescued, Failed bool
}

func read(in io.Reader) (report, error) {
	var r report
	if err := json.NewDecoder(in).Decode(&r); err != nil {
		return r, fmt.Errorf("this is no report: %w", err)
	}
	if r.Format != format {
		return r, fmt.Errorf("the report has format %d, this draws format %d", r.Format, format)
	}
	if len(r.Runs) == 0 {
		return r, errors.New("the report has no runs")
	}
	return r, nil
}
