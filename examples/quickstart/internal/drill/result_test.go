package drill

import (
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/examples/internal/load"
	"github.com/keyturn/keyturn/examples/quickstart/internal/report"
)

// played is a run of one second that rotated once, after half of it: request 50 was refused and rescued, 60 failed.
func played() (*run, []load.Record) {
	r := &run{Config: Config{Weather: Revoked, SDK: "genai", Rate: 100, Interval: time.Second}, uses: newUses(), keys: &keys{}, began: time.Unix(1000, 0)}
	var records []load.Record
	for id := range 100 {
		due := r.began.Add(time.Duration(id) * 10 * time.Millisecond)
		record := load.Record{ID: id, Stream: id%4 == 0, Due: due, First: due.Add(2 * time.Millisecond), Generation: 1}
		if id >= 50 {
			record.Generation = 2
		}
		switch id {
		case 50:
			record.First = due.Add(9 * time.Millisecond)
			r.refusals.note(geminitest.Request{Prompt: prompt(id), Refused: geminitest.Invalid})
		case 60:
			record.Fault = "HTTP 503: no key"
		}
		record.Done = record.First
		r.answered(record)
		records = append(records, record)
	}
	written := r.began.Add(499 * time.Millisecond)
	r.rotations = []rotation{{generation: 2, written: written, possible: written}}
	return r, records
}

func TestRequestsAreCountedByWhatBecameOfThem(t *testing.T) {
	r, records := played()
	var out report.Run
	r.countRequests(&out, records)
	if want := (report.Requests{Total: 100, Streams: 25, Succeeded: 99, Rescued: 1, Failed: 1}); out.Requests != want {
		t.Errorf("%+v, want %+v", out.Requests, want)
	}
	if len(out.Failures) != 1 || out.Failures[0] != (report.Fault{Reason: "HTTP 503: no key", Count: 1, First: 0.6}) {
		t.Errorf("the failures are %+v", out.Failures)
	}
}

func TestRescuedRequestsAreComparedWithTheOthersOfTheirKind(t *testing.T) {
	r, records := played()
	var out report.Run
	r.measure(&out, records)
	if want := (report.Percentiles{Count: 1, P50: 7, P99: 7, Max: 7}); out.RescuedExtra != want {
		t.Errorf("the extra is %+v, want %+v", out.RescuedExtra, want)
	}
	if out.Latency.Max != 9 || out.Latency.Count != 75 || out.StreamLatency.Max != 2 {
		t.Errorf("the latencies are %+v and %+v", out.Latency, out.StreamLatency)
	}
}

func TestASwapLastsFromWhenTheKeyCouldBeUsedToItsFirstSuccess(t *testing.T) {
	r, _ := played()
	var out report.Run
	r.reportRotations(&out) // request 50 was due after 500 ms; request 51 had the first success, after 512
	if out.Swap.Count != 1 || out.Swap.P50 != 10 || out.Rotations[0].Used != 0.509 {
		t.Errorf("%+v %+v", out.Swap, out.Rotations)
	}
	r.rotations = append(r.rotations, rotation{generation: 3, written: r.began, possible: r.began})
	r.reportRotations(&out)
	if out.Error == "" {
		t.Error("a generation that nobody ever used is no error")
	}
}

func TestTheTimelineHasEachRequestOnce(t *testing.T) {
	r, records := played()
	out := report.Run{Seconds: 0.99}
	r.draw(&out, records)
	if out.BucketSeconds != 0.05 || len(out.Timeline) != 20 {
		t.Fatalf("%d buckets of %v s", len(out.Timeline), out.BucketSeconds)
	}
	served, rescued, failed := map[uint64]int{}, 0, 0
	for _, b := range out.Timeline {
		for _, g := range b.Generations {
			served[g.Generation] += g.Requests
		}
		rescued, failed = rescued+b.Rescued, failed+b.Failed
	}
	if served[1] != 50 || served[2] != 48 || rescued != 1 || failed != 1 {
		t.Errorf("served %v, %d rescued, %d failed", served, rescued, failed)
	}
	if out.Timeline[10].At != 0.5 || out.Timeline[10].Rescued != 1 {
		t.Errorf("the bucket of the rotation is %+v", out.Timeline[10])
	}
}

func TestTheExcerptShowsTheRotationInTheMiddle(t *testing.T) {
	r, records := played()
	r.Interval = 50 * time.Millisecond // six of them, so 150 ms either way
	got := r.excerpt(records)
	if len(got) != 30 || got[0].At < 0.35 || got[len(got)-1].At > 0.66 {
		t.Errorf("%d requests from %v to %v", len(got), got[0].At, got[len(got)-1].At)
	}
	rescued, failed := 0, 0
	for _, q := range got {
		if q.Rescued {
			rescued++
		}
		if q.Failed {
			failed++
		}
	}
	if rescued != 1 || failed != 1 {
		t.Errorf("%d rescued, %d failed", rescued, failed)
	}
	r.rotations = nil
	if got := r.excerpt(records); len(got) != 0 {
		t.Errorf("without a rotation the excerpt has %d requests", len(got))
	}
}

func TestBucketsAreNeverTooMany(t *testing.T) {
	for _, seconds := range []float64{0, 1, 20, 39.9, 210, 1000, 3600} {
		if width := bucketWidth(seconds); seconds/width.Seconds() > maxBuckets {
			t.Errorf("%v s are cut into pieces of %v", seconds, width)
		}
	}
}
