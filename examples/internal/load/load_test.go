package load

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func prompt(id int) string { return fmt.Sprintf("request %d", id) }

// app stands in for the app: it echoes the prompt, in three pieces if streamed, and lets mess change what is sent.
func app(t *testing.T, mess func(w http.ResponseWriter, stream bool, prompt string) bool) string {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var body struct{ Prompt string }
		if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
			t.Errorf("the request's body: %v", err)
		}
		stream := r.URL.Path == "/v1/stream"
		if mess != nil && mess(w, stream, body.Prompt) {
			return
		}
		if !stream {
			fmt.Fprintf(w, `{"text":%q,"generation":3}`, body.Prompt)
			return
		}
		third := len(body.Prompt) / 3
		for _, piece := range []string{body.Prompt[:third], body.Prompt[third : 2*third], body.Prompt[2*third:]} {
			fmt.Fprintf(w, "data: {\"text\":%q}\n\n", piece)
			w.(http.Flusher).Flush()
		}
		io.WriteString(w, "event: done\ndata: {\"generation\":4}\n\n")
	}))
	t.Cleanup(server.Close)
	return server.URL
}

func TestEveryRequestIsMadeOnceAndItsAnswerRecorded(t *testing.T) {
	var seen atomic.Int64
	records := Run(t.Context(), nil, Config{
		URL: app(t, nil), Rate: 2000, Streams: 0.25, Limit: 200, Prompt: prompt, Expect: prompt,
		Answered: func(Record) { seen.Add(1) },
	})
	if len(records) != 200 || seen.Load() != 200 {
		t.Fatalf("%d records, %d told, want 200", len(records), seen.Load())
	}
	streams := 0
	for i, r := range records {
		want := uint64(3)
		if r.Stream {
			streams, want = streams+1, 4
		}
		if r.ID != i || !r.OK() || r.Generation != want {
			t.Fatalf("record %d: %+v", i, r)
		}
		if r.First.Before(r.Due) || r.Done.Before(r.First) {
			t.Fatalf("record %d: its times are out of order: %+v", i, r)
		}
	}
	if streams != 50 {
		t.Errorf("%d of 200 requests were streamed, want a quarter", streams)
	}
}

func TestAStallNeitherStopsTheScheduleNorHidesInIt(t *testing.T) {
	release := make(chan struct{})
	var arrived atomic.Int64
	url := app(t, func(http.ResponseWriter, bool, string) bool {
		if arrived.Add(1) == 50 {
			close(release)
		}
		<-release
		return false
	})
	// In a closed loop the fiftieth request would never be sent, and nobody would be released.
	records := Run(t.Context(), nil, Config{URL: url, Rate: 500, Limit: 50, Prompt: prompt})
	if d := records[1].Due.Sub(records[0].Due); d != 2*time.Millisecond {
		t.Errorf("requests are due every %v, want 2ms", d)
	}
	if l := records[0].Latency(); l < 98*time.Millisecond {
		t.Errorf("the first request waited for the fiftieth, yet its latency is %v", l)
	}
}

func TestStopEndsTheScheduleAndWaitsForAnswers(t *testing.T) {
	stop, arrived := make(chan struct{}), make(chan struct{}, 10_000)
	url := app(t, func(http.ResponseWriter, bool, string) bool { arrived <- struct{}{}; return false })
	done := make(chan []Record)
	go func() { done <- Run(t.Context(), stop, Config{URL: url, Rate: 200, Limit: 1 << 30, Prompt: prompt}) }()
	<-arrived
	close(stop)
	for _, r := range <-done {
		if !r.OK() {
			t.Errorf("a request failed because the load was stopped: %+v", r)
		}
	}
}

func TestTheEndOfTheContextBreaksRequestsOff(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	arrived, forever := make(chan struct{}), make(chan struct{})
	defer close(forever)
	url := app(t, func(http.ResponseWriter, bool, string) bool { close(arrived); <-forever; return false })
	done := make(chan []Record)
	go func() { done <- Run(ctx, nil, Config{URL: url, Rate: 1, Limit: 1, Prompt: prompt}) }()
	<-arrived
	cancel()
	if records := <-done; records[0].OK() {
		t.Errorf("a request that was broken off counts as answered: %+v", records[0])
	}
}

func TestWhatIsNoCompleteAnswerIsAFailureWithItsReason(t *testing.T) {
	problem := `{"title":"No key works","detail":"Gemini refuses every key","status":503}`
	for name, c := range map[string]struct {
		status int
		body   string
		stream bool
		fault  string
	}{
		"a problem document":       {503, problem, false, "HTTP 503: No key works: Gemini refuses every key"},
		"an error that is none":    {502, "bad gateway\n", false, "HTTP 502: bad gateway"},
		"no JSON":                  {200, "hello", false, "not the JSON"},
		"an empty text":            {200, `{"text":"","generation":1}`, false, "empty"},
		"another answer":           {200, `{"text":"something else","generation":1}`, false, "wrong answer"},
		"a stream without an end":  {200, "data: {\"text\":\"request 0\"}\n\n", true, "without its done event"},
		"a done that is cut off":   {200, "data: {\"text\":\"request 0\"}\n\nevent: done\ndata: {\"generation\":1}\n", true, "without its done event"},
		"a stream with an error":   {200, "data: {\"text\":\"request 0\"}\n\nevent: error\ndata: " + problem + "\n\n", true, "error: No key works"},
		"a stream that is refused": {503, problem, true, "HTTP 503"},
		"a piece that is no JSON":  {200, "data: {\n\n", true, "not the JSON"},
		"a piece that is missing":  {200, "data: {\"text\":\"request\"}\n\nevent: done\ndata: {\"generation\":1}\n\n", true, "wrong answer"},
	} {
		t.Run(name, func(t *testing.T) {
			url := app(t, func(w http.ResponseWriter, _ bool, _ string) bool {
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
				return true
			})
			share := 0.0
			if c.stream {
				share = 1
			}
			r := Run(t.Context(), nil, Config{URL: url, Rate: 1, Streams: share, Limit: 1, Prompt: prompt, Expect: prompt})[0]
			if r.OK() || !strings.Contains(r.Fault, c.fault) {
				t.Errorf("the fault is %q, want %q in it", r.Fault, c.fault)
			}
		})
	}
}

func TestCommentsAndUnknownEventsOfAStreamAreSkipped(t *testing.T) {
	url := app(t, func(w http.ResponseWriter, _ bool, _ string) bool {
		io.WriteString(w, ": ping\n\nevent: ping\ndata: x\n\ndata: {\"text\":\"request 0\"}\n\nevent: done\ndata: {\"generation\":9}\n\n")
		return true
	})
	r := Run(t.Context(), nil, Config{URL: url, Rate: 1, Streams: 1, Limit: 1, Prompt: prompt, Expect: prompt})[0]
	if !r.OK() || r.Generation != 9 {
		t.Errorf("%+v", r)
	}
}
