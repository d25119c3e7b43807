package drill

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/examples/internal/load"
	"github.com/keyturn/keyturn/examples/quickstart/internal/report"
	"github.com/keyturn/keyturn/examples/quickstart/internal/stage"
)

// result makes the report of a run that has come to its end, or was broken off. reads is what the audit log had before it.
func (r *run) result(ctx context.Context, records []load.Record, broken error, reads int) (report.Run, error) {
	out := report.Run{
		Weather: string(r.Weather), SDK: r.SDK,
		Load:      report.Load{Rate: r.Rate, Streams: r.Streams, Poll: r.Poll.Seconds(), Interval: r.Interval.Seconds()},
		Processes: r.samples,
	}
	if len(records) > 0 {
		out.Seconds = r.at(records[len(records)-1].Due)
	}
	if broken != nil {
		out.Error = broken.Error()
	}
	r.awaitStandIn(ctx)
	r.countRequests(&out, records)
	r.measure(&out, records)
	r.reportRotations(&out)
	r.draw(&out, records)
	after, err := r.stage.Vault.Reads()
	if err != nil {
		return out, err
	}
	out.VaultReads = after - reads
	agent, errAgent := r.pod.AgentMetrics(ctx)
	app, errApp := r.pod.AppMetrics(ctx)
	if err := cmp.Or(errAgent, errApp); err != nil && broken == nil {
		return out, err
	}
	out.Agent, out.App = ours(agent), ours(app)
	return out, nil
}

// awaitStandIn waits until the stand-in has accounted for all that it answered.
func (r *run) awaitStandIn(ctx context.Context) {
	if r.keys.standIn == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	every(ctx, time.Millisecond, func() {
		if r.keys.standIn.Running() == 0 {
			cancel()
		}
	})
}

// at returns t in seconds since the start of the run.
func (r *run) at(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Sub(r.began).Microseconds()) / 1e6
}

func (r *run) rescued(record load.Record) bool {
	return record.OK() && r.refusals.of(record.ID) > 0
}

func (r *run) countRequests(out *report.Run, records []load.Record) {
	faults := map[string]*report.Fault{}
	for _, record := range records {
		out.Requests.Total++
		if record.Stream {
			out.Requests.Streams++
		}
		if record.OK() {
			out.Requests.Succeeded++
			if r.rescued(record) {
				out.Requests.Rescued++
			}
			continue
		}
		out.Requests.Failed++
		fault := faults[record.Fault]
		if fault == nil {
			fault = &report.Fault{Reason: record.Fault, First: r.at(record.Due)}
			faults[record.Fault] = fault
		}
		fault.Count++
	}
	out.Failures = []report.Fault{}
	for _, f := range faults {
		out.Failures = append(out.Failures, *f)
	}
	slices.SortFunc(out.Failures, func(a, b report.Fault) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.First, b.First), cmp.Compare(a.Reason, b.Reason))
	})
}

// measure sums up the latencies.
func (r *run) measure(out *report.Run, records []load.Record) {
	kinds := map[bool][]time.Duration{} // by whether it is a stream; without the rescued
	for _, record := range records {
		if record.OK() && !r.rescued(record) {
			kinds[record.Stream] = append(kinds[record.Stream], record.Latency())
		}
	}
	usual := map[bool]time.Duration{false: report.Median(kinds[false]), true: report.Median(kinds[true])}
	var extra []time.Duration
	for _, record := range records {
		if r.rescued(record) {
			kinds[record.Stream] = append(kinds[record.Stream], record.Latency())
			extra = append(extra, max(0, record.Latency()-usual[record.Stream]))
		}
	}
	out.Latency, out.StreamLatency = report.Summarize(kinds[false]), report.Summarize(kinds[true])
	out.RescuedExtra = report.Summarize(extra)
}

func (r *run) reportRotations(out *report.Run) {
	var swaps []time.Duration
	for _, rotation := range r.rotations {
		line := report.Rotation{Generation: rotation.generation, Written: r.at(rotation.written), Possible: r.at(rotation.possible)}
		if used, ok := r.uses.first(rotation.generation); ok {
			swap := max(0, used.Sub(rotation.possible))
			line.Used, line.Swap = r.at(used), report.Milliseconds(swap)
			swaps = append(swaps, swap)
		} else if out.Error == "" {
			out.Error = fmt.Sprintf("generation %d never had a success, though a later one had", rotation.generation)
		}
		out.Rotations = append(out.Rotations, line)
	}
	out.Swap = report.Summarize(swaps)
}

// ours returns those of m that keyturn counts itself.
func ours(m stage.Metrics) map[string]float64 {
	all := map[string]float64{}
	for name, v := range m {
		if strings.HasPrefix(name, "keyturn_") && !strings.Contains(name, "_bucket{") {
			all[name] = v
		}
	}
	return all
}
