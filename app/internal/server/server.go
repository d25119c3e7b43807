// Package server is the app's HTTP service: answers of Gemini, whole or piece by piece, and what those who watch it ask for.
//
//	POST /v1/generate  {"prompt":"…"} -> 200 {"text":"…","generation":7}
//	POST /v1/stream    the same -> text/event-stream: data: {"text":"…"} for each piece as it comes, then
//	                   event: done with {"generation":7}, or event: error with a [Problem]
//	GET  /status       -> [Status]
//	GET  /livez        -> 200 as long as the process answers
//	GET  /readyz       -> [Readiness]; 200 while a key serves, else 503
//	GET  /metrics      -> keyturn_app_*, for Prometheus
//
// Every error is a [Problem] (RFC 9457), except what net/http refuses before it is a request: no HTTP, or a header that is too
// large. Nothing that is answered, measured or logged holds a prompt or a key, except that
// an answer goes to whoever asked for it.
//
// # Decisions
//
// The headers of a stream are sent with its first piece, so that a failure before it still has a status.
//
// There is no WriteTimeout, which would cut streams. Instead each write has a deadline of its own, so that a caller who
// stops reading holds nothing for longer than that.
//
// A person who has to set up the project or the API is needed for [gemini.FaultConfig]: it is a 502, not a 503, which would
// promise that waiting helps.
//
// Routing is a map and not an http.ServeMux, whose own answers to an unknown path, another method or a doubled slash are
// not problem documents.
package server

import (
	"context"
	"iter"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/keyturn/keyturn/app/client"
)

// Client answers prompts. Its errors are those of package client.
type Client interface {
	Generate(ctx context.Context, prompt string) (client.Answer, error)
	Stream(ctx context.Context, prompt string) iter.Seq2[client.Answer, error]
	Status() client.Status
}

// Build is what keyturn_app_build_info says.
type Build struct{ Version, Commit, Go string }

// Config is what a Server needs. All fields are required, but Linger and Drain may be zero.
type Config struct {
	Client Client
	Build  Build
	Log    *slog.Logger

	Call   time.Duration // the most that one request or stream may take
	Write  time.Duration // the most that one write to a caller may take
	Linger time.Duration // how long a server that was told to stop still accepts, while those who ask /readyz turn away
	Drain  time.Duration // how long, after that, running requests and streams may take to end by themselves
}

// Server answers. It is safe for concurrent use.
type Server struct {
	Config
	routes   map[string]route
	requests *requests
	calls    *semaphore.Weighted // see inFlight
	troubles *troubles
	stopping atomic.Bool
}

type route struct {
	methods []string
	serve   http.HandlerFunc
}

// New returns a server. Serve makes it answer.
func New(c Config) *Server {
	s := &Server{Config: c, requests: newRequests(), calls: semaphore.NewWeighted(inFlight), troubles: newTroubles(c.Log)}
	get, post := []string{http.MethodGet, http.MethodHead}, []string{http.MethodPost}
	s.routes = map[string]route{
		"/v1/generate": {post, s.answer("generate", s.generate)},
		"/v1/stream":   {post, s.answer("stream", s.stream)},
		"/status":      {get, s.status},
		"/livez":       {get, livez},
		"/readyz":      {get, s.readyz},
		"/metrics":     {get, s.metrics()},
	}
	return s
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w = &writer{ResponseWriter: w, control: http.NewResponseController(w), timeout: s.Write, stopping: &s.stopping}
	route, ok := s.routes[r.URL.Path]
	switch {
	case !ok:
		plain(http.StatusNotFound, "there is nothing at this path").send(w)
	case !slices.Contains(route.methods, r.Method):
		w.Header().Set("Allow", strings.Join(route.methods, ", "))
		plain(http.StatusMethodNotAllowed, "this path takes "+strings.Join(route.methods, " and ")).send(w)
	default:
		route.serve(w, r)
	}
}

func livez(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok\n"))
}

// writer gives each write its deadline. If the server stops, the connection ends with the answer and so loses no request:
// whether it does is seen when the answer begins, and not when the request did.
type writer struct {
	http.ResponseWriter
	control  *http.ResponseController
	timeout  time.Duration
	stopping *atomic.Bool
	begun    bool
}

// WriteHeader implements http.ResponseWriter.
func (w *writer) WriteHeader(status int) {
	w.begun = true
	if w.stopping.Load() {
		w.Header().Set("Connection", "close")
	}
	w.ResponseWriter.WriteHeader(status)
}

// Write implements http.ResponseWriter.
func (w *writer) Write(p []byte) (int, error) {
	if !w.begun {
		w.WriteHeader(http.StatusOK)
	}
	if err := w.control.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap is for http.ResponseController.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
