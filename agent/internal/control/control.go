// Package control is the socket beside the files: over it an app asks for a refresh and acknowledges what it uses, and a
// person asks how things stand. It speaks HTTP/1.1 over a unix socket that only processes of the agent's own uid may use;
// nothing that it says or takes is a secret.
//
//	POST /refresh  RefreshRequest -> Refreshed
//	POST /ack      AckRequest     -> 204; 409 if the file has been replaced since
//	GET  /status                  -> Status
//
// Everything else is a 4xx with one sentence as plain text, and changes nothing.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

const (
	// maxBody bounds a request's body; the largest sensible one is a tenth of it.
	maxBody = 4 << 10
	// maxWait bounds how long a refresh may take; callers give up earlier.
	maxWait = 15 * time.Second
)

// Loop is what the socket controls.
type Loop interface {
	Refresh(ctx context.Context, file string, have secret.Identity, refused bool) (turn.Outcome, turn.FileStatus, error)
	Acknowledge(file string, id secret.Identity, at time.Time) error
	Status() turn.Status
}

// RefreshRequest is the body of POST /refresh.
type RefreshRequest struct {
	// File is the file's name within the directory; Identity is the one that the caller read, zero if it read none.
	File     string          `json:"file"`
	Identity secret.Identity `json:"identity"`
	// Refused says that the value which the caller read was refused where it is used.
	Refused bool `json:"refused"`
}

// Refreshed is the answer to it: how the file stands after the store was read.
type Refreshed struct {
	// Outcome is published, unchanged, held or unreachable; Reason says why, for the last two.
	Outcome turn.Outcome `json:"outcome"`
	Reason  string       `json:"reason,omitempty"`
	// Version and Identity are those of the file as it stands; zero if it doesn't.
	Version  string          `json:"version,omitempty"`
	Identity secret.Identity `json:"identity"`
}

// AckRequest is the body of POST /ack.
type AckRequest struct {
	File     string          `json:"file"`
	Identity secret.Identity `json:"identity"`
	// At is when the value first had success.
	At time.Time `json:"at"`
}

// Server answers on the socket. Use New.
type Server struct {
	loop    Loop
	log     *slog.Logger
	ignored atomic.Uint64
	refused atomic.Uint64
}

// New returns a server for loop. Serve makes it answer.
func New(loop Loop, log *slog.Logger) *Server { return &Server{loop: loop, log: log} }

// IgnoredAcks returns how many acknowledgements named a file that had been replaced, or never was.
func (s *Server) IgnoredAcks() uint64 { return s.ignored.Load() }

// RefusedPeers returns how many connections came from another uid.
func (s *Server) RefusedPeers() uint64 { return s.refused.Load() }

func (s *Server) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /refresh", s.refresh)
	mux.HandleFunc("POST /ack", s.ack)
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { respond(w, report(s.loop.Status())) })
	return mux
}

func (s *Server) refresh(w http.ResponseWriter, r *http.Request) {
	var request RefreshRequest
	if !decode(w, r, &request) {
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), maxWait)
	defer cancel()
	outcome, file, err := s.loop.Refresh(ctx, request.File, request.Identity, request.Refused)
	switch {
	case errors.Is(err, turn.ErrNoFile):
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		http.Error(w, "the outcome isn't known yet: ask again", http.StatusGatewayTimeout)
	default:
		respond(w, refreshed(outcome, file))
	}
}

func refreshed(outcome turn.Outcome, f turn.FileStatus) Refreshed {
	r := Refreshed{Outcome: outcome, Identity: f.Identity}
	switch outcome {
	case turn.Held:
		r.Reason = f.HeldReason
	case turn.Unreachable:
		r.Reason = f.Reason
	}
	if f.Rendered && !f.Read.IsZero() {
		r.Version = f.Published.String()
	}
	return r
}

func (s *Server) ack(w http.ResponseWriter, r *http.Request) {
	var request AckRequest
	if !decode(w, r, &request) {
		return
	}
	if request.At.IsZero() {
		http.Error(w, "the time of the first success is missing", http.StatusBadRequest)
		return
	}
	switch err := s.loop.Acknowledge(request.File, request.Identity, request.At); {
	case errors.Is(err, turn.ErrNoFile):
		s.ignored.Add(1)
		http.Error(w, err.Error(), http.StatusNotFound)
	case err != nil:
		s.ignored.Add(1)
		http.Error(w, err.Error(), http.StatusConflict)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}

// decode reads the one JSON document that the body must be. It answers the request itself if it isn't.
func decode(w http.ResponseWriter, r *http.Request, into any) bool {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		if _, err = d.Token(); err == io.EOF {
			return true
		}
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		http.Error(w, "the body is larger than 4 KiB", http.StatusRequestEntityTooLarge)
	} else {
		http.Error(w, "the body is not the JSON document that this path takes", http.StatusBadRequest)
	}
	return false
}

func respond(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(body)
}
