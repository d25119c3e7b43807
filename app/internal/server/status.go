package server

import (
	"net/http"
	"time"
)

// Status is the answer to GET /status. A generation is a number that grows by one with each key; it says nothing of the key.
type Status struct {
	Generation uint64    `json:"generation"`
	SwappedAt  time.Time `json:"swapped_at,omitzero"`
	// Draining is how many former generations requests still run on.
	Draining int `json:"draining"`
	// Predecessor is the former generation that may still stand in for the current one.
	Predecessor uint64 `json:"predecessor,omitempty"`
	// CurrentRefused says that Gemini refused the current generation's key when it was used last.
	CurrentRefused bool   `json:"current_refused"`
	Ready          bool   `json:"ready"`
	Reason         string `json:"reason,omitempty"`

	// Since the start.
	Calls        uint64 `json:"calls"`
	Refused      uint64 `json:"refused"`
	Rescued      uint64 `json:"rescued"`
	Waited       uint64 `json:"waited"`
	Refreshes    uint64 `json:"refreshes"`
	Acknowledged uint64 `json:"acknowledged"`
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) {
	now := s.Client.Status()
	send(w, http.StatusOK, "application/json", Status{
		Generation: now.Generation, SwappedAt: now.SwappedAt, Draining: now.Draining,
		Predecessor: now.Predecessor, CurrentRefused: now.CurrentRefused, Ready: now.Ready, Reason: now.Reason,
		Calls: now.Calls, Refused: now.Refused, Rescued: now.Rescued, Waited: now.Waited,
		Refreshes: now.Refreshes, Acknowledged: now.Acknowledged,
	})
}

// Readiness is the body of /readyz.
type Readiness struct {
	Ready bool `json:"ready"`
	// Reason says why it isn't ready or, if it is, why the file's newest key is not taken; empty if all is well.
	Reason string `json:"reason,omitempty"`
}

func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	now := s.Client.Status()
	body, code := Readiness{now.Ready, now.Reason}, http.StatusOK
	if s.stopping.Load() {
		body = Readiness{false, "it was told to stop"}
	}
	if !body.Ready {
		code = http.StatusServiceUnavailable
	}
	send(w, code, "application/json", body)
}
