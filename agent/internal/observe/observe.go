// Package observe answers those who watch the agent: probes over HTTP and metrics for Prometheus.
package observe

import (
	"encoding/json"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/keyturn/keyturn/agent/internal/turn"
)

// Handler serves GET and HEAD of /livez, /readyz and /metrics, and nothing else.
//
// /livez is 200 as long as the process answers. /readyz is 200 once every file has been rendered, and stays so through an
// outage, since the last good key serves; its body names each file with what it waits for. It holds no secret.
func Handler(status func() turn.Status, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("ok\n"))
	})
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		body := readiness(status())
		w.Header().Set("Content-Type", "application/json")
		if !body.Ready {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		json.NewEncoder(w).Encode(body)
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{MaxRequestsInFlight: 2}))
	return mux
}

// Readiness is the body of /readyz.
type Readiness struct {
	Ready bool         `json:"ready"`
	Files []FileReport `json:"files"`
}

// FileReport says how one file is.
type FileReport struct {
	File     string `json:"file"`
	Rendered bool   `json:"rendered"`
	// Version is the one that is rendered, as the store counts; empty before the first.
	Version string `json:"version,omitempty"`
	// Waits says why the file waits for its first value or, once rendered, for a newer one; empty if it doesn't.
	Waits string `json:"waits_for,omitempty"`
}

func readiness(s turn.Status) Readiness {
	r := Readiness{Ready: true, Files: make([]FileReport, len(s.Files))}
	for i, f := range s.Files {
		r.Files[i] = FileReport{File: f.File, Rendered: f.Rendered, Waits: f.Reason}
		if f.Rendered {
			r.Files[i].Version = f.Published.String()
		}
		r.Ready = r.Ready && f.Rendered
	}
	return r
}
