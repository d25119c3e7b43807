package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// Table writes the report for people, in plain text.
func (r Report) Table(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "weather\tSDK\tload\trequests\tstreams\tfailed\trotations\trescued\tswap p50\tp99\trescue p50\tp99\t")
	for _, run := range r.Runs {
		fmt.Fprintf(t, "%s\t%s\t%d/s\t%s\t%s\t%s\t%d\t%s\t%s\t%s\t%s\t%s\t\n",
			run.Weather, run.SDK, run.Load.Rate, number(run.Requests.Total), number(run.Requests.Streams), number(run.Requests.Failed),
			len(run.Rotations), number(run.Requests.Rescued),
			duration(run.Swap, run.Swap.P50), duration(run.Swap, run.Swap.P99),
			duration(run.RescuedExtra, run.RescuedExtra.P50), duration(run.RescuedExtra, run.RescuedExtra.P99))
	}
	fmt.Fprintln(t, "\nweather\tSDK\tload\tpoll\tVault reads\tagent\tapp\t")
	for _, run := range r.Runs {
		fmt.Fprintf(t, "%s\t%s\t%d/s\t%gs\t%d\t%s\t%s\t\n", run.Weather, run.SDK, run.Load.Rate, run.Load.Poll, run.VaultReads,
			run.memory(Sample.agent), run.memory(Sample.app))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(w, "\n%s%s\n", r.failures(), legend)
	return err
}

const legend = `swap         from the moment a new key could be used to the first success with it: from Vault's answer to the write or,
             if later, from the key's acceptance everywhere (delayed) or Vault's return (outage)
rescue       what requests on whose way a key was refused took beyond the median of their kind
Vault reads  of the secret, by Vault's own audit log
agent, app   resident memory and goroutines, near the start > at the end`

func (s Sample) agent() (mib float64, goroutines int) { return s.AgentMiB, s.AgentGoroutines }
func (s Sample) app() (mib float64, goroutines int)   { return s.AppMiB, s.AppGoroutines }

// memory says what a process had near the start, once it was warm, and at the end.
func (r Run) memory(of func(Sample) (float64, int)) string {
	warm, end := r.Warm(), r.Processes
	if len(warm) == 0 {
		return "-"
	}
	firstMiB, firstGoroutines := middle(warm, of)
	lastMiB, lastGoroutines := middle(end[len(end)-len(warm):], of)
	return fmt.Sprintf("%.0f>%.0f MiB %d>%d", firstMiB, lastMiB, firstGoroutines, lastGoroutines)
}

// Warm returns the samples of the run's second tenth.
func (r Run) Warm() []Sample {
	tenth := (len(r.Processes) + 9) / 10
	return r.Processes[min(tenth, max(0, len(r.Processes)-tenth)):min(2*tenth, len(r.Processes))]
}

// middle returns the medians of what of says of samples.
func middle(samples []Sample, of func(Sample) (float64, int)) (float64, int) {
	var mib []float64
	var goroutines []int
	for _, s := range samples {
		m, g := of(s)
		mib, goroutines = append(mib, m), append(goroutines, g)
	}
	slices.Sort(mib)
	slices.Sort(goroutines)
	return mib[len(mib)/2], goroutines[len(goroutines)/2]
}

// failures lists what went wrong, with an empty line after it; nothing if nothing did.
func (r Report) failures() string {
	var b strings.Builder
	for _, run := range r.Runs {
		if run.Error != "" {
			fmt.Fprintf(&b, "%s, %s: broken off: %s\n", run.Weather, run.SDK, run.Error)
		}
		for _, f := range run.Failures {
			fmt.Fprintf(&b, "%s, %s: %d failed, the first after %.1f s: %s\n", run.Weather, run.SDK, f.Count, f.First, f.Reason)
		}
	}
	if b.Len() > 0 {
		b.WriteByte('\n')
	}
	return b.String()
}

// number writes n with commas between its thousands.
func number(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// duration writes milliseconds so that their size is seen: 7.3 ms, 1.25 s; a dash if there was nothing to measure.
func duration(of Percentiles, ms float64) string {
	switch {
	case of.Count == 0:
		return "-"
	case ms < 1000:
		return fmt.Sprintf("%.1f ms", ms)
	}
	return fmt.Sprintf("%.2f s", ms/1000)
}
