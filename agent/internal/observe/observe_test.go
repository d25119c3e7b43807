package observe

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// fresh is a file that waits for its first value, good one that is in step and in use, behind one that isn't in step.
var (
	fresh = turn.FileStatus{File: "fresh", Reason: "the store was not read yet"}
	good  = turn.FileStatus{
		File: "good", Rendered: true, Renders: 3, Repairs: 2, Stored: secret.Version{Number: 7}, Published: secret.Version{Number: 7},
		Changed: time.UnixMilli(1_700_000_000_250), Read: time.UnixMilli(1_700_000_100_000),
		InUse: turn.InUse{Version: secret.Version{Number: 7}, Since: time.UnixMilli(1_700_000_000_500), Lag: 250 * time.Millisecond},
	}
	behind = turn.FileStatus{
		File: "behind", Rendered: true, Renders: 1, Stored: secret.Version{Number: 4}, Published: secret.Version{Number: 3},
		Changed: time.UnixMilli(1_700_000_000_000), Read: time.UnixMilli(1_700_000_000_000), Refused: true, Unproven: "silence",
		Held: secret.Version{Number: 4}, HeldSince: time.UnixMilli(1_700_000_000_000), HeldReason: "refused", Kind: turn.KindHeld, Reason: "refused",
	}
)

func facts(s turn.Status) Facts {
	return Facts{
		Status:      func() turn.Status { return s },
		TokenExpiry: func() (time.Time, bool) { return time.Time{}, false },
		IgnoredAcks: func() uint64 { return 2 }, RefusedPeers: func() uint64 { return 5 },
		Build: Build{"v1.2.3", "abcdef", "go1.26"},
	}
}

func ask(t *testing.T, s turn.Status, method, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	f := facts(s)
	Handler(f.Status, Registry(f)).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), method, path, nil))
	return w
}

// Ready is an agent whose every file has been rendered once, whatever has befallen the store since. The body says which
// file waits for what.
func TestReadinessIsLostByNothingButAFirstRenderToCome(t *testing.T) {
	outage := &source.Error{Kind: source.Sealed, Reason: "Vault is sealed: unseal it"}
	stale := good
	stale.Kind, stale.Reason = outage.Kind, outage.Reason
	for what, c := range map[string]struct {
		status turn.Status
		code   int
		waits  []string
	}{
		"nothing rendered":    {turn.Status{Files: []turn.FileStatus{fresh}}, 503, []string{"the store was not read yet"}},
		"one to come":         {turn.Status{Files: []turn.FileStatus{good, fresh}}, 503, []string{"", "the store was not read yet"}},
		"all in step":         {turn.Status{Files: []turn.FileStatus{good}}, 200, []string{""}},
		"one behind":          {turn.Status{Files: []turn.FileStatus{good, behind}}, 200, []string{"", "refused"}},
		"an outage afterward": {turn.Status{Outage: outage, Files: []turn.FileStatus{stale}}, 200, []string{outage.Reason}},
	} {
		t.Run(what, func(t *testing.T) {
			w := ask(t, c.status, http.MethodGet, "/readyz")
			var body Readiness
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			if w.Code != c.code || body.Ready != (c.code == 200) || w.Header().Get("Content-Type") != "application/json" {
				t.Errorf("%d %v, want %d", w.Code, body, c.code)
			}
			var waits []string
			for i, f := range body.Files {
				waits = append(waits, f.Waits)
				if s := c.status.Files[i]; f.File != s.File || f.Rendered != s.Rendered || (f.Version != "") != s.Rendered {
					t.Errorf("%+v is said of %+v", f, s)
				}
			}
			if !slices.Equal(waits, c.waits) {
				t.Errorf("the files wait for %q, want %q", waits, c.waits)
			}
		})
	}
}

func TestTheListenerAnswersOnlyWhatItServes(t *testing.T) {
	status := turn.Status{Files: []turn.FileStatus{good}}
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/livez", 200}, {"HEAD", "/livez", 200}, {"GET", "/readyz", 200}, {"HEAD", "/readyz", 200}, {"GET", "/metrics", 200},
		{"POST", "/livez", 405}, {"DELETE", "/readyz", 405}, {"PUT", "/metrics", 405},
		{"GET", "/", 404}, {"GET", "/status", 404}, {"GET", "/livez/", 404}, {"GET", "/debug/pprof/", 404}, {"POST", "/refresh", 404},
	} {
		if w := ask(t, status, c.method, c.path); w.Code != c.want {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.want)
		}
	}
	if w := ask(t, turn.Status{Files: []turn.FileStatus{fresh}}, "GET", "/livez"); w.Code != 200 || w.Body.String() != "ok\n" {
		t.Errorf("an agent that waits is alive all the same: %d %q", w.Code, w.Body)
	}
}

// Every metric's name, labels and value: those who alert on them rely on all three.
func TestTheMetricsTellTheWholeState(t *testing.T) {
	f := facts(turn.Status{
		Outage: &source.Error{Kind: source.Sealed, Reason: "sealed"}, Failures: map[source.Kind]uint64{source.Sealed: 9, source.Denied: 1},
		Files: []turn.FileStatus{fresh, good, behind},
	})
	f.SkipVerify = true
	const want = `
# HELP keyturn_agent_build_info What runs; always 1.
# TYPE keyturn_agent_build_info gauge
keyturn_agent_build_info{commit="abcdef",go="go1.26",version="v1.2.3"} 1
# HELP keyturn_agent_file_changed_timestamp_seconds When the file last got other bytes.
# TYPE keyturn_agent_file_changed_timestamp_seconds gauge
keyturn_agent_file_changed_timestamp_seconds{file="behind"} 1.7e+09
keyturn_agent_file_changed_timestamp_seconds{file="fresh"} 0
keyturn_agent_file_changed_timestamp_seconds{file="good"} 1.70000000025e+09
# HELP keyturn_agent_file_held 1 while the gate holds a newer version back.
# TYPE keyturn_agent_file_held gauge
keyturn_agent_file_held{file="behind"} 1
keyturn_agent_file_held{file="fresh"} 0
keyturn_agent_file_held{file="good"} 0
# HELP keyturn_agent_file_in_step 1 while the file holds what the store holds; 0 while a last good value stands in.
# TYPE keyturn_agent_file_in_step gauge
keyturn_agent_file_in_step{file="behind"} 0
keyturn_agent_file_in_step{file="fresh"} 0
keyturn_agent_file_in_step{file="good"} 1
# HELP keyturn_agent_file_in_use_lag_seconds The time from the render of that version to its first success.
# TYPE keyturn_agent_file_in_use_lag_seconds gauge
keyturn_agent_file_in_use_lag_seconds{file="good"} 0.25
# HELP keyturn_agent_file_in_use_version The store's number of the version that the app acknowledged last.
# TYPE keyturn_agent_file_in_use_version gauge
keyturn_agent_file_in_use_version{file="good"} 7
# HELP keyturn_agent_file_refused 1 while the value in force is known to be refused.
# TYPE keyturn_agent_file_refused gauge
keyturn_agent_file_refused{file="behind"} 1
keyturn_agent_file_refused{file="fresh"} 0
keyturn_agent_file_refused{file="good"} 0
# HELP keyturn_agent_file_rendered 1 once the file has been rendered.
# TYPE keyturn_agent_file_rendered gauge
keyturn_agent_file_rendered{file="behind"} 1
keyturn_agent_file_rendered{file="fresh"} 0
keyturn_agent_file_rendered{file="good"} 1
# HELP keyturn_agent_file_unproven 1 while the value in force was published without proof.
# TYPE keyturn_agent_file_unproven gauge
keyturn_agent_file_unproven{file="behind"} 1
keyturn_agent_file_unproven{file="fresh"} 0
keyturn_agent_file_unproven{file="good"} 0
# HELP keyturn_agent_file_version The store's number of the version in the file; 0 if it has none.
# TYPE keyturn_agent_file_version gauge
keyturn_agent_file_version{file="behind"} 3
keyturn_agent_file_version{file="fresh"} 0
keyturn_agent_file_version{file="good"} 7
# HELP keyturn_agent_ignored_acks_total Acknowledgements of files that had been replaced.
# TYPE keyturn_agent_ignored_acks_total counter
keyturn_agent_ignored_acks_total 2
# HELP keyturn_agent_ready 1 once every file has been rendered.
# TYPE keyturn_agent_ready gauge
keyturn_agent_ready 0
# HELP keyturn_agent_refused_peers_total Connections to the socket from other users.
# TYPE keyturn_agent_refused_peers_total counter
keyturn_agent_refused_peers_total 5
# HELP keyturn_agent_repairs_total How often the file was put back after somebody had changed it.
# TYPE keyturn_agent_repairs_total counter
keyturn_agent_repairs_total{file="behind"} 0
keyturn_agent_repairs_total{file="fresh"} 0
keyturn_agent_repairs_total{file="good"} 2
# HELP keyturn_agent_renders_total How often the file was written.
# TYPE keyturn_agent_renders_total counter
keyturn_agent_renders_total{file="behind"} 1
keyturn_agent_renders_total{file="fresh"} 0
keyturn_agent_renders_total{file="good"} 3
# HELP keyturn_agent_store_read_failures_total Reads of the store that failed, by reason.
# TYPE keyturn_agent_store_read_failures_total counter
keyturn_agent_store_read_failures_total{reason="denied"} 1
keyturn_agent_store_read_failures_total{reason="sealed"} 9
# HELP keyturn_agent_store_read_timestamp_seconds When the store was last read with success.
# TYPE keyturn_agent_store_read_timestamp_seconds gauge
keyturn_agent_store_read_timestamp_seconds{file="behind"} 1.7e+09
keyturn_agent_store_read_timestamp_seconds{file="fresh"} 0
keyturn_agent_store_read_timestamp_seconds{file="good"} 1.7000001e+09
# HELP keyturn_agent_store_tls_verify_skipped 1 if the store's certificate is not checked.
# TYPE keyturn_agent_store_tls_verify_skipped gauge
keyturn_agent_store_tls_verify_skipped 1
# HELP keyturn_agent_store_up 0 while the store as a whole fails.
# TYPE keyturn_agent_store_up gauge
keyturn_agent_store_up 0
# HELP keyturn_agent_store_version The store's number of the version that was read last.
# TYPE keyturn_agent_store_version gauge
keyturn_agent_store_version{file="behind"} 4
keyturn_agent_store_version{file="fresh"} 0
keyturn_agent_store_version{file="good"} 7
`
	if err := testutil.CollectAndCompare(&collector{f}, strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	problems, err := testutil.CollectAndLint(&collector{f})
	if err != nil || len(problems) > 0 {
		t.Errorf("promlint: %v %v", problems, err)
	}
}

func TestTheTokensTimeIsTold(t *testing.T) {
	for _, c := range []struct {
		expiry time.Time
		ends   bool
		low    float64
		high   float64
	}{
		{time.Now().Add(time.Hour), true, 3590, 3600}, {time.Now().Add(-time.Hour), true, 0, 0}, {time.Time{}, false, -1, -1},
	} {
		f := facts(turn.Status{})
		f.TokenExpiry = func() (time.Time, bool) { return c.expiry, c.ends }
		got := -1.0 // not told
		gathered, err := Registry(f).Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, family := range gathered {
			if family.GetName() == "keyturn_agent_store_token_ttl_seconds" {
				got = family.GetMetric()[0].GetGauge().GetValue()
			}
		}
		if got < c.low || got > c.high {
			t.Errorf("a token that ends (%t) at %v has %v s left", c.ends, c.expiry, got)
		}
	}
}

// What a scrape costs is paid by every pod, every few seconds.
func BenchmarkScrapeOfAThousandFiles(b *testing.B) {
	s := turn.Status{Files: slices.Repeat([]turn.FileStatus{good}, 1000)}
	for i := range s.Files {
		s.Files[i].File = "file-" + strings.Repeat("x", i%9) + string(rune('a'+i%26)) + time.Duration(i).String()
	}
	f := facts(s)
	handler := Handler(f.Status, Registry(f))
	b.ReportAllocs()
	for b.Loop() {
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, httptest.NewRequestWithContext(b.Context(), http.MethodGet, "/metrics", nil))
		if w.Code != http.StatusOK {
			b.Fatal(w.Body)
		}
	}
}
