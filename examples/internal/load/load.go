// Package load asks the app for answers on a schedule that no answer can move, and keeps account of each.
//
// The schedule is open: a request is due at its own time, whether or not earlier ones have been answered, and its latency
// counts from then. A closed loop would wait out a stall and never see it.
package load

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"
)

const (
	// maxInFlight bounds the requests that wait for an answer at once. One that is due beyond it counts as failed.
	maxInFlight = 4096
	// maxIdle bounds the connections that are kept, so that one stall doesn't show in the app's memory for ever.
	maxIdle = 64
	// answerTimeout bounds the wait for an answer, streams included.
	answerTimeout = 30 * time.Second
)

// Config says what to ask. URL, Rate, Limit and Prompt are required.
type Config struct {
	// URL is the app's, without a path.
	URL string
	// Rate is how many requests are due a second, Streams the share of them that are streamed, from 0 to 1.
	Rate    int
	Streams float64
	// Limit is the most requests that are ever made.
	Limit int
	// Prompt returns the prompt of the request with this number; Expect, if not nil, what its answer must be, to the letter.
	Prompt func(id int) string
	Expect func(id int) string
	// Answered, if not nil, is called once for each request, from many goroutines, as soon as its outcome is known.
	Answered func(Record)
}

// Record is the account of one request. Its times are zero where they never came.
type Record struct {
	ID     int
	Stream bool
	// Due is when the schedule wanted it sent; First when its answer began to arrive (the first piece of a stream); Done
	// when its outcome was known.
	Due, First, Done time.Time
	// Generation is the app's number of the key that it was answered with.
	Generation uint64
	// Fault says why it failed; empty if it was answered to the end.
	Fault string
}

// OK reports whether the request was answered to the end.
func (r Record) OK() bool { return r.Fault == "" }

// Latency is the time from when the request was due until it was answered, or, for a stream, until its first piece came.
func (r Record) Latency() time.Duration { return r.First.Sub(r.Due) }

// Run makes requests until Limit is reached or stop is closed, waits for the answers that are still out, and returns the
// records of all requests in the order in which they were due. When ctx ends it breaks off what is under way; those
// requests count as failed.
func Run(ctx context.Context, stop <-chan struct{}, c Config) []Record {
	transport := &http.Transport{MaxIdleConnsPerHost: maxIdle, DisableCompression: true}
	defer transport.CloseIdleConnections()
	a := &asker{config: c, http: &http.Client{Transport: transport, Timeout: answerTimeout}}
	slots := make(chan struct{}, maxInFlight)
	var records []*Record
	var out sync.WaitGroup
	for start, id := time.Now(), 0; id < c.Limit; id++ {
		due := start.Add(time.Duration(id) * time.Second / time.Duration(c.Rate))
		if !wait(ctx, stop, due) {
			break
		}
		r := &Record{ID: id, Stream: streamed(id, c.Streams), Due: due}
		records = append(records, r)
		select {
		case slots <- struct{}{}:
			out.Go(func() {
				a.ask(ctx, r)
				<-slots
			})
		default:
			r.Done, r.Fault = time.Now(), fmt.Sprintf("not sent: %d requests are waiting for an answer already", maxInFlight)
			a.answered(r)
		}
	}
	out.Wait()
	all := make([]Record, len(records))
	for i, r := range records {
		all[i] = *r
	}
	return all
}

// streamed spreads the streamed requests evenly.
func streamed(id int, share float64) bool { return int(float64(id+1)*share) > int(float64(id)*share) }

// wait returns true once it is due, or false as soon as ctx ends or stop is closed.
func wait(ctx context.Context, stop <-chan struct{}, due time.Time) bool {
	select {
	case <-ctx.Done():
		return false
	case <-stop:
		return false
	default:
	}
	d := time.Until(due)
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
	case <-stop:
	}
	return false
}
