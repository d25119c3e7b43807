package geminitest

import (
	"net/http"
	"time"
)

// key is what the stand-in knows of one key.
type key struct {
	ordinal int
	refuse  Case          // refused as this; empty: accepted
	until   time.Time     // the end of refuse, if not zero
	every   int           // if not zero, only each every-th request is refused
	seen    int           // requests since every was set
	limit   int           // requests still to be refused with RateLimited
	wait    time.Duration // their Retry-After
}

// Add makes the server accept k from now on, whatever was wrong with it before, and returns its ordinal: keys are numbered
// from 1 in the order in which they were first named.
func (s *Server) Add(k string) int { return s.change(k, func(*key) {}) }

// Revoke deletes k: requests that arrive from now on are refused as [Invalid].
func (s *Server) Revoke(k string) { s.Refuse(k, Invalid) }

// Refuse refuses k as c from now on.
func (s *Server) Refuse(k string, c Case) { s.change(k, func(state *key) { state.refuse = c }) }

// Delay refuses k as [Expired] for d, and accepts it then: what Google does with a brand-new key. It returns the ordinal.
func (s *Server) Delay(k string, d time.Duration) int {
	return s.change(k, func(state *key) { state.refuse, state.until = Expired, time.Now().Add(d) })
}

// Flap refuses each every-th request with k as [Expired] for d, and accepts all of them then: a new key that some front
// ends know already and some don't. It returns the ordinal.
func (s *Server) Flap(k string, every int, d time.Duration) int {
	return s.change(k, func(state *key) {
		state.refuse, state.until, state.every = Expired, time.Now().Add(d), max(every, 1)
	})
}

// Suspend refuses k as [Suspended]. The answer quotes the key in full, as Google's does.
func (s *Server) Suspend(k string) { s.Refuse(k, Suspended) }

// Leak refuses k as [Leaked].
func (s *Server) Leak(k string) { s.Refuse(k, Leaked) }

// DenyProject refuses k as [ProjectDenied].
func (s *Server) DenyProject(k string) { s.Refuse(k, ProjectDenied) }

// DisableService refuses k as [ServiceDisabled].
func (s *Server) DisableService(k string) { s.Refuse(k, ServiceDisabled) }

// RateLimit refuses the next n requests with k as [RateLimited] and asks to wait for retryAfter (a header in whole seconds;
// none if it is 0).
func (s *Server) RateLimit(k string, retryAfter time.Duration, n int) {
	s.change(k, func(state *key) { state.limit, state.wait = n, retryAfter })
}

// change puts k into a fresh state and returns its ordinal.
func (s *Server) change(k string, set func(*key)) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := &key{ordinal: len(s.keys) + 1}
	if old := s.keys[k]; old != nil {
		state.ordinal = old.ordinal
	}
	set(state)
	s.keys[k] = state
	return state.ordinal
}

// judge says which key a request has, and why it is refused (empty: it is not). It must be called with s.mu held.
func (s *Server) judge(r *http.Request) (ordinal int, refused Case, wait time.Duration) {
	header, bearer := r.Header.Get("X-Goog-Api-Key"), r.Header.Get("Authorization")
	inURL := r.URL.Query().Has("key")
	if inURL {
		s.record.inURLs++
	}
	switch {
	case inURL && (header != "" || bearer != ""), header != "" && bearer != "", len(r.Header.Values("X-Goog-Api-Key")) > 1:
		return 0, TwoCredentials, 0
	case inURL:
		return 0, KeyInURL, 0
	case bearer != "":
		return 0, TokenType, 0
	case header == "":
		return 0, NoKey, 0
	}
	state := s.keys[header]
	if state == nil {
		return 0, Invalid, 0
	}
	if state.limit > 0 {
		state.limit--
		return state.ordinal, RateLimited, state.wait
	}
	if state.refuse == "" || !state.until.IsZero() && !time.Now().Before(state.until) {
		return state.ordinal, "", 0
	}
	if state.every > 0 {
		state.seen++
		if state.seen%state.every != 0 {
			return state.ordinal, "", 0
		}
	}
	return state.ordinal, state.refuse, 0
}
