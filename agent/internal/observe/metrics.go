package observe

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/keyturn/keyturn/agent/internal/turn"
)

// Build is what keyturn_agent_build_info says.
type Build struct{ Version, Commit, Go string }

// Facts is where the metrics come from. All fields are required.
type Facts struct {
	Status func() turn.Status
	// TokenExpiry returns when the agent's access to the store ends; false if it doesn't, or there is none.
	TokenExpiry func() (time.Time, bool)
	// IgnoredAcks and RefusedPeers count what the socket turned away.
	IgnoredAcks, RefusedPeers func() uint64
	// SkipVerify says that the store's certificate isn't checked (VAULT_SKIP_VERIFY).
	SkipVerify bool
	Build      Build
}

// Registry returns a registry with all that the agent measures, read from f when it is gathered.
func Registry(f Facts) *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&collector{f},
	)
	return r
}

var (
	buildInfo = describe("build_info", "What runs; always 1.", "version", "commit", "go")
	ready     = describe("ready", "1 once every file has been rendered.")
	rendered  = describe("file_rendered", "1 once the file has been rendered.", "file")
	inSync    = describe("file_in_step", "1 while the file holds what the store holds; 0 while a last good value stands in.", "file")
	published = describe("file_version", "The store's number of the version in the file; 0 if it has none.", "file")
	stored    = describe("store_version", "The store's number of the version that was read last.", "file")
	changed   = describe("file_changed_timestamp_seconds", "When the file last got other bytes.", "file")
	read      = describe("store_read_timestamp_seconds", "When the store was last read with success.", "file")
	renders   = describe("renders_total", "How often the file was written.", "file")
	repairs   = describe("repairs_total", "How often the file was put back after somebody had changed it.", "file")
	failures  = describe("store_read_failures_total", "Reads of the store that failed, by reason.", "reason")
	storeUp   = describe("store_up", "0 while the store as a whole fails.")
	tokenTTL  = describe("store_token_ttl_seconds", "How long the agent's access to the store lasts unless it is renewed.")
	inUse     = describe("file_in_use_version", "The store's number of the version that the app acknowledged last.", "file")
	useLag    = describe("file_in_use_lag_seconds", "The time from the render of that version to its first success.", "file")
	heldBack  = describe("file_held", "1 while the gate holds a newer version back.", "file")
	refused   = describe("file_refused", "1 while the value in force is known to be refused.", "file")
	unproven  = describe("file_unproven", "1 while the value in force was published without proof.", "file")
	ignored   = describe("ignored_acks_total", "Acknowledgements of files that had been replaced.")
	peers     = describe("refused_peers_total", "Connections to the socket from other users.")
	skips     = describe("store_tls_verify_skipped", "1 if the store's certificate is not checked.")
)

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("keyturn_agent_"+name, help, labels, nil)
}

// collector makes each metric when it is asked for, so that a thousand files cost nothing between two scrapes.
type collector struct{ Facts }

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{buildInfo, ready, rendered, inSync, published, stored, changed, read, renders, repairs,
		failures, storeUp, tokenTTL, inUse, useLag, heldBack, refused, unproven, ignored, peers, skips} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, n uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	s := c.Status()
	gauge(buildInfo, 1, c.Build.Version, c.Build.Commit, c.Build.Go)
	gauge(ready, flag(readiness(s).Ready))
	gauge(storeUp, flag(s.Outage == nil))
	gauge(skips, flag(c.SkipVerify))
	if expiry, ok := c.TokenExpiry(); ok {
		gauge(tokenTTL, max(0, time.Until(expiry).Seconds()))
	}
	counter(ignored, c.IgnoredAcks())
	counter(peers, c.RefusedPeers())
	for kind, n := range s.Failures {
		counter(failures, n, string(kind))
	}
	for _, f := range s.Files {
		gauge(rendered, flag(f.Rendered), f.File)
		gauge(inSync, flag(f.Rendered && f.Reason == ""), f.File)
		gauge(published, float64(f.Published.Number), f.File)
		gauge(stored, float64(f.Stored.Number), f.File)
		gauge(changed, seconds(f.Changed), f.File)
		gauge(read, seconds(f.Read), f.File)
		counter(renders, f.Renders, f.File)
		counter(repairs, f.Repairs, f.File)
		gauge(heldBack, flag(!f.HeldSince.IsZero()), f.File)
		gauge(refused, flag(f.Refused), f.File)
		gauge(unproven, flag(f.Unproven != ""), f.File)
		if !f.InUse.Since.IsZero() {
			gauge(inUse, float64(f.InUse.Version.Number), f.File)
			gauge(useLag, f.InUse.Lag.Seconds(), f.File)
		}
	}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// seconds is Unix time as Prometheus writes it; 0 for a time that hasn't come.
func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMilli()) / 1000
}
