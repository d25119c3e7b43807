// Package report holds what a drill found, for people as a table and for programs as JSON, which examples/quickstart/plot
// draws.
package report

import (
	"encoding/json"
	"io"
	"time"
)

// Format is the number of the JSON format; it changes when a field changes its meaning.
const Format = 1

// Report is the outcome of a drill. Names that end in _ms are milliseconds, At is seconds since the start of its run.
type Report struct {
	Format  int       `json:"format"`
	Started time.Time `json:"started"`
	Seconds float64   `json:"seconds"`
	Machine Machine   `json:"machine"`
	Vault   string    `json:"vault"`
	Passed  bool      `json:"passed"`
	Runs    []Run     `json:"runs"`
}

// Machine is where it ran.
type Machine struct {
	CPU   string `json:"cpu"`
	Cores int    `json:"cores"`
	OS    string `json:"os"`
	Go    string `json:"go"`
}

// Run is one SDK in one weather under one load.
type Run struct {
	Weather string `json:"weather"`
	SDK     string `json:"sdk"`
	Load    Load   `json:"load"`

	Seconds  float64  `json:"seconds"`
	Requests Requests `json:"requests"`
	Failures []Fault  `json:"failures"` // the reasons, most frequent first
	Error    string   `json:"error,omitempty"`

	// Latency is the time from when a request was due to its answer; of streams, to the first piece.
	Latency       Percentiles `json:"latency_ms"`
	StreamLatency Percentiles `json:"stream_latency_ms"`
	// Swap is the time from the moment a new key could be used to the first success with it: from Vault's answer to the
	// write or, where that came later, from the key's acceptance everywhere or Vault's return.
	Swap Percentiles `json:"swap_ms"`
	// RescuedExtra is what rescued requests took beyond the median of those of their kind that were not.
	RescuedExtra Percentiles `json:"rescued_extra_ms"`
	// VaultReads is how often the agent read the secret, as Vault's audit log has it.
	VaultReads int `json:"vault_reads"`

	Rotations []Rotation         `json:"rotations"`
	Processes []Sample           `json:"processes"`
	Agent     map[string]float64 `json:"agent_metrics"` // keyturn_agent_… at the end
	App       map[string]float64 `json:"app_metrics"`   // keyturn_app_… at the end

	BucketSeconds float64   `json:"bucket_seconds"`
	Timeline      []Bucket  `json:"timeline"`
	Excerpt       []Request `json:"excerpt"` // every request of a few moments in the middle of the run
}

// Load is what was asked of the app.
type Load struct {
	Rate     int     `json:"requests_per_second"`
	Streams  float64 `json:"stream_share"`
	Poll     float64 `json:"poll_seconds"`
	Interval float64 `json:"rotation_interval_seconds"`
}

// Requests counts requests by what became of them. Rescued ones are among the succeeded: a key was refused on their way.
type Requests struct {
	Total     int `json:"total"`
	Streams   int `json:"streams"`
	Succeeded int `json:"succeeded"`
	Rescued   int `json:"rescued"`
	Failed    int `json:"failed"`
}

// Fault is why requests failed.
type Fault struct {
	Reason string  `json:"reason"`
	Count  int     `json:"count"`
	First  float64 `json:"first_at"`
}

// Rotation is one key that replaced another. Used is zero if it never came into use.
type Rotation struct {
	Generation uint64  `json:"generation"` // the app's number of the new key
	Written    float64 `json:"written_at"` // Vault's answer to the write
	Possible   float64 `json:"possible_at"`
	Used       float64 `json:"used_at"` // the first success with the new key
	Swap       float64 `json:"swap_ms"`
}

// Sample is the state of the two processes at one moment.
type Sample struct {
	At              float64 `json:"at"`
	AgentMiB        float64 `json:"agent_mib"` // resident
	AppMiB          float64 `json:"app_mib"`
	AgentGoroutines int     `json:"agent_goroutines"`
	AppGoroutines   int     `json:"app_goroutines"`
}

// Bucket sums up the requests that were due within one piece of the run.
type Bucket struct {
	At          float64     `json:"at"`
	Generations []Served    `json:"generations"` // succeeded, by the generation that answered; without the rescued
	Rescued     int         `json:"rescued"`
	Failed      int         `json:"failed"`
	Latency     Percentiles `json:"latency_ms"`
}

// Served is how many requests a generation answered.
type Served struct {
	Generation uint64 `json:"generation"`
	Requests   int    `json:"requests"`
}

// Request is one request of an excerpt.
type Request struct {
	At         float64 `json:"at"` // when it was due
	Latency    float64 `json:"latency_ms"`
	Generation uint64  `json:"generation"`
	Stream     bool    `json:"stream,omitempty"`
	Rescued    bool    `json:"rescued,omitempty"`
	Failed     bool    `json:"failed,omitempty"`
}

// OK reports whether the run came to its end and no request failed.
func (r Run) OK() bool { return r.Error == "" && r.Requests.Failed == 0 && r.Requests.Total > 0 }

// Finish sets what follows from the runs: whether all of them passed, and how long it took.
func (r *Report) Finish(now time.Time) {
	r.Format, r.Seconds = Format, now.Sub(r.Started).Seconds()
	r.Passed = len(r.Runs) > 0
	for _, run := range r.Runs {
		r.Passed = r.Passed && run.OK()
	}
}

// Write writes the report as one line of JSON.
func (r Report) Write(w io.Writer) error {
	return json.NewEncoder(w).Encode(r)
}
