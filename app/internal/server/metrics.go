package server

import (
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/semaphore"
)

const namespace = "keyturn_app"

// requests measures POST /v1/… by method, which is generate or stream, and outcome.
type requests struct {
	total    *prometheus.CounterVec
	duration *prometheus.HistogramVec
	running  atomic.Int64
}

func newRequests() *requests {
	r := &requests{
		total: prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: "requests_total",
			Help: "Requests and streams that have ended, by method and outcome."}, []string{"method", "outcome"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{Namespace: namespace, Name: "request_duration_seconds",
			Help:    "How long they took, to the end of the answer.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 120, 300}}, []string{"method"}),
	}
	for _, method := range []string{"generate", "stream"} {
		r.duration.WithLabelValues(method)
		for _, o := range outcomes {
			r.total.WithLabelValues(method, string(o)) // a series that starts at 0 shows its first increase
		}
	}
	return r
}

// begin counts a request as running until end is called, once.
func (r *requests) begin(method string) (end func(outcome)) {
	started := time.Now()
	r.running.Add(1)
	return func(o outcome) {
		r.running.Add(-1)
		r.total.WithLabelValues(method, string(o)).Inc()
		r.duration.WithLabelValues(method).Observe(time.Since(started).Seconds())
	}
}

// scrapes is how many may look at /metrics at once.
const scrapes = 2

// metrics answers with all that the app measures. What can't be measured is left out, and counted.
func (s *Server) metrics() http.HandlerFunc {
	r := s.registry()
	handler := promhttp.HandlerFor(r, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, Registry: r})
	places := semaphore.NewWeighted(scrapes)
	return func(w http.ResponseWriter, r *http.Request) {
		if !places.TryAcquire(1) {
			overloaded("as many look at /metrics").send(w)
			return
		}
		defer places.Release(1)
		handler.ServeHTTP(w, r)
	}
}

// registry returns all that the app measures.
func (s *Server) registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		s.requests.total, s.requests.duration,
		&collector{s},
	)
	return r
}

var (
	buildInfo   = describe("build_info", "What runs; always 1.", "version", "commit", "go")
	ready       = describe("ready", "1 while a key serves.")
	generation  = describe("generation", "The generation in use; it grows by one with each key, and is 0 before the first.")
	swapped     = describe("swap_timestamp_seconds", "When that generation came into use.")
	draining    = describe("draining_generations", "Former generations that requests still run on.")
	keyIsBad    = describe("key_refused", "1 while Gemini refuses the generation in use.")
	running     = describe("requests_running", "Requests and streams that run now.")
	calls       = describe("calls_total", "Calls of Gemini, each counted once however often it was run.")
	refusals    = describe("refused_total", "Answers of Gemini that refused a key.")
	rescues     = describe("rescued_total", "Calls that succeeded on another key than their first.")
	waits       = describe("waited_total", "Calls that waited for a better key.")
	refreshes   = describe("refreshes_total", "How often the agent was asked to read the store now.")
	acks        = describe("acknowledged_total", "How often the agent was told which key is in use.")
	description = []*prometheus.Desc{buildInfo, ready, generation, swapped, draining, keyIsBad, running, calls, refusals, rescues,
		waits, refreshes, acks}
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(namespace+"_"+name, help, labels, nil)
}

// collector reads the client's state when it is asked for.
type collector struct{ *Server }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range description {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, n uint64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n))
	}
	now := c.Client.Status()
	gauge(buildInfo, 1, c.Build.Version, c.Build.Commit, c.Build.Go)
	gauge(ready, flag(now.Ready && !c.stopping.Load()))
	gauge(generation, float64(now.Generation))
	if !now.SwappedAt.IsZero() {
		gauge(swapped, float64(now.SwappedAt.UnixMilli())/1000)
	}
	gauge(draining, float64(now.Draining))
	gauge(keyIsBad, flag(now.CurrentRefused))
	gauge(running, float64(c.requests.running.Load()))
	counter(calls, now.Calls)
	counter(refusals, now.Refused)
	counter(rescues, now.Rescued)
	counter(waits, now.Waited)
	counter(refreshes, now.Refreshes)
	counter(acks, now.Acknowledged)
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
