package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// sample is a small report that has one of everything.
func sample() Report {
	failing := Run{
		Weather: "outage", SDK: "genai", Load: Load{Rate: 100, Streams: 1, Poll: 1, Interval: 1},
		Seconds:   2,
		Requests:  Requests{Total: 200, Streams: 200, Succeeded: 197, Failed: 3},
		Failures:  []Fault{{"HTTP 503: no key works", 2, 0.5}, {"the stream ended without its done event", 1, 1.25}},
		Error:     "rotation 1 of 6: no success with generation 2 within 45s",
		Rotations: []Rotation{}, Timeline: []Bucket{}, Excerpt: []Request{},
	}
	passing := Run{
		Weather: "revoked", SDK: "generative-ai-go", Load: Load{Rate: 500, Streams: 0.2, Poll: 15, Interval: 0.42},
		Seconds:       3,
		Requests:      Requests{Total: 1500, Streams: 300, Succeeded: 1500, Rescued: 2},
		Failures:      []Fault{},
		Latency:       Percentiles{1200, 1.1, 4.5, 12.3},
		StreamLatency: Percentiles{300, 1.2, 5.5, 9.75},
		Swap:          Percentiles{2, 5.2, 7.9, 7.9},
		RescuedExtra:  Percentiles{2, 4.1, 1204.4, 1204.4},
		VaultReads:    3,
		Rotations: []Rotation{
			{Generation: 2, Written: 1, Possible: 1, Used: 1.0052, Swap: 5.2},
			{Generation: 3, Written: 2, Possible: 2, Used: 2.0079, Swap: 7.9},
		},
		Agent: map[string]float64{"keyturn_agent_ready": 1}, App: map[string]float64{"keyturn_app_rescued_total": 2},
		BucketSeconds: 0.5, Timeline: []Bucket{}, Excerpt: []Request{},
	}
	for i := range 30 {
		at := float64(i) / 10
		passing.Processes = append(passing.Processes, Sample{at, 14 + at/10, 25 + at/10, 20, 40 + i%2})
	}
	for i := range 6 {
		at, generation := float64(i)/2, uint64(1+i/2)
		bucket := Bucket{At: at, Generations: []Served{{generation, 249}}, Rescued: i % 2, Latency: Percentiles{250, 1.1, 4, 12.3}}
		passing.Timeline = append(passing.Timeline, bucket)
	}
	for i := range 40 {
		q := Request{At: 1.8 + float64(i)/100, Latency: 1 + float64(i%7)/4, Generation: uint64(2 + i/20), Stream: i%5 == 0}
		q.Rescued, q.Failed = i == 20, i == 33
		passing.Excerpt = append(passing.Excerpt, q)
	}
	r := Report{
		Started: time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC), Vault: "1.21.1",
		Machine: Machine{CPU: "a processor", Cores: 2, OS: "linux/amd64", Go: "go1.26"},
		Runs:    []Run{passing, failing},
	}
	r.Finish(r.Started.Add(90 * time.Second))
	return r
}

// The picture's module draws this very file in its tests: a change of the format shows on both sides.
func TestTheReportIsWrittenAsJSON(t *testing.T) {
	var b bytes.Buffer
	if err := sample().Write(&b); err != nil {
		t.Fatal(err)
	}
	var readable bytes.Buffer
	if err := json.Indent(&readable, b.Bytes(), "", "  "); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.json", readable.Bytes())
}

func TestTheTableTellsEverythingAtAGlance(t *testing.T) {
	var b bytes.Buffer
	if err := sample().Table(&b); err != nil {
		t.Fatal(err)
	}
	golden(t, "table.txt", b.Bytes())
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is now (write it anew with -update):\n%s", path, got)
	}
}

func TestAReportPassesOnlyIfEachRunDid(t *testing.T) {
	good := Run{Requests: Requests{Total: 1, Succeeded: 1}}
	for name, c := range map[string]struct {
		runs []Run
		want bool
	}{
		"all good":         {[]Run{good, good}, true},
		"no run":           {nil, false},
		"a failed request": {[]Run{good, {Requests: Requests{Total: 2, Succeeded: 1, Failed: 1}}}, false},
		"broken off":       {[]Run{{Requests: good.Requests, Error: "no success"}, good}, false},
		"nothing asked":    {[]Run{{}}, false},
	} {
		r := Report{Runs: c.runs}
		r.Finish(time.Now())
		if r.Passed != c.want {
			t.Errorf("%s: passed is %v", name, r.Passed)
		}
	}
}

func TestPercentilesAreDurationsThatOccurred(t *testing.T) {
	var hundred []time.Duration
	for i := 100; i >= 1; i-- {
		hundred = append(hundred, time.Duration(i)*time.Millisecond)
	}
	for name, c := range map[string]struct {
		all  []time.Duration
		want Percentiles
	}{
		"none":    {nil, Percentiles{}},
		"one":     {hundred[99:], Percentiles{1, 1, 1, 1}},
		"two":     {hundred[98:], Percentiles{2, 1, 2, 2}},
		"hundred": {hundred, Percentiles{100, 50, 99, 100}},
	} {
		if got := Summarize(append([]time.Duration(nil), c.all...)); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if got := Milliseconds(1234567 * time.Nanosecond); got != 1.234 {
		t.Errorf("1.234567 ms are written as %v", got)
	}
}

func TestMemoryIsComparedOnceWarmAndAtTheEnd(t *testing.T) {
	r := Run{}
	for i := range 20 { // two of them are a tenth: the first two are cold, the last two are huge
		s := Sample{AgentMiB: 10, AgentGoroutines: 5}
		if i < 2 {
			s.AgentMiB = 1
		}
		if i >= 18 {
			s.AgentMiB, s.AgentGoroutines = 30, 50
		}
		r.Processes = append(r.Processes, s)
	}
	if got := r.memory(Sample.agent); got != "10>30 MiB 5>50" {
		t.Errorf("the memory is %q", got)
	}
	for n := range 4 { // short runs have few samples, or none
		short := Run{Processes: r.Processes[:n]}
		if got := short.memory(Sample.agent); (got == "-") != (n == 0) {
			t.Errorf("with %d samples the memory is %q", n, got)
		}
	}
}

func TestNumbersAreWrittenForPeople(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := number(n); got != want {
			t.Errorf("%d is written as %s", n, got)
		}
	}
	some := Percentiles{Count: 1}
	if got := strings.Join([]string{duration(Percentiles{}, 0), duration(some, 7.26), duration(some, 1250)}, " "); got != "- 7.3 ms 1.25 s" {
		t.Errorf("durations are written as %s", got)
	}
}
