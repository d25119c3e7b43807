package report

import (
	"math"
	"slices"
	"time"
)

// Percentiles sums up durations, in milliseconds. All are 0 if there were none.
type Percentiles struct {
	Count int     `json:"count"`
	P50   float64 `json:"p50"`
	P99   float64 `json:"p99"`
	Max   float64 `json:"max"`
}

// Summarize returns the percentiles of all, by nearest rank: each is a duration that occurred. It sorts all.
func Summarize(all []time.Duration) Percentiles {
	if len(all) == 0 {
		return Percentiles{}
	}
	slices.Sort(all)
	return Percentiles{
		Count: len(all),
		P50:   Milliseconds(rank(all, 0.50)),
		P99:   Milliseconds(rank(all, 0.99)),
		Max:   Milliseconds(all[len(all)-1]),
	}
}

// rank returns the smallest element of sorted that at least the share p of all doesn't exceed.
func rank(sorted []time.Duration, p float64) time.Duration {
	return sorted[max(0, int(math.Ceil(p*float64(len(sorted))))-1)]
}

// Median returns the middle one of all, or 0 if there is none. It sorts all.
func Median(all []time.Duration) time.Duration {
	if len(all) == 0 {
		return 0
	}
	slices.Sort(all)
	return rank(all, 0.5)
}

// Milliseconds returns d in milliseconds, to the microsecond.
func Milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
