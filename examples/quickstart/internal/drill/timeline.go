package drill

import (
	"maps"
	"slices"
	"time"

	"github.com/keyturn/keyturn/examples/internal/load"
	"github.com/keyturn/keyturn/examples/quickstart/internal/report"
)

const (
	// maxBuckets bounds the pieces that a run's timeline has.
	maxBuckets = 400
	// An excerpt shows about excerptRotations rotations, or part of one if those are more than excerptRequests requests.
	excerptRotations, excerptRequests = 6, 800
)

// draw fills in what a picture is made of.
func (r *run) draw(out *report.Run, records []load.Record) {
	width := bucketWidth(out.Seconds)
	out.BucketSeconds = width.Seconds()
	out.Timeline, out.Excerpt = []report.Bucket{}, r.excerpt(records)
	for len(records) > 0 {
		n := int(records[0].Due.Sub(r.began) / width)
		end := slices.IndexFunc(records, func(x load.Record) bool { return int(x.Due.Sub(r.began)/width) != n })
		if end < 0 {
			end = len(records)
		}
		out.Timeline = append(out.Timeline, r.bucket((time.Duration(n)*width).Seconds(), records[:end]))
		records = records[end:]
	}
}

// bucketWidth returns the finest round width that divides a run into no more than maxBuckets.
func bucketWidth(seconds float64) time.Duration {
	for _, width := range []time.Duration{50, 100, 200, 500, 1000, 2000, 5000} {
		if width *= time.Millisecond; seconds/width.Seconds() <= maxBuckets {
			return width
		}
	}
	return 10 * time.Second
}

func (r *run) bucket(at float64, records []load.Record) report.Bucket {
	b := report.Bucket{At: at, Generations: []report.Served{}}
	served := map[uint64]int{}
	var latencies []time.Duration
	for _, record := range records {
		switch {
		case !record.OK():
			b.Failed++
			continue
		case r.rescued(record):
			b.Rescued++
		default:
			served[record.Generation]++
		}
		latencies = append(latencies, record.Latency())
	}
	for _, generation := range slices.Sorted(maps.Keys(served)) {
		b.Generations = append(b.Generations, report.Served{Generation: generation, Requests: served[generation]})
	}
	b.Latency = report.Summarize(latencies)
	return b
}

// excerpt returns every request around the first success of a key in the middle of the run, and perhaps of its neighbours.
func (r *run) excerpt(records []load.Record) []report.Request {
	all := []report.Request{}
	if len(r.rotations) == 0 {
		return all
	}
	centre, ok := r.uses.first(r.rotations[len(r.rotations)/2].generation)
	if !ok {
		return all
	}
	half := time.Duration(float64(excerptRequests) / float64(r.Rate) / 2 * float64(time.Second))
	half = min(half, excerptRotations*r.Interval/2)
	for _, record := range records {
		if record.Due.Before(centre.Add(-half)) || record.Due.After(centre.Add(half)) {
			continue
		}
		all = append(all, report.Request{
			At: r.at(record.Due), Latency: report.Milliseconds(record.Latency()), Generation: record.Generation,
			Stream: record.Stream, Rescued: r.rescued(record), Failed: !record.OK(),
		})
	}
	return all
}
