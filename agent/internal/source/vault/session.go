package vault

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// session is one login: a client with a token, and what is known of the mounts that the token sees. Safe for concurrent use.
type session struct {
	client *client
	own    bool // the token is ours to revoke
	began  time.Time
	mounts mounts

	mu        sync.Mutex
	ends      time.Time // zero: never
	renewable bool
	lifetime  time.Duration // at the last login or renewal
}

// auth is what Vault says of a token when it is made, renewed or looked up.
type auth struct {
	ClientToken   string `json:"client_token"`
	LeaseDuration int    `json:"lease_duration"`
	Renewable     bool   `json:"renewable"`
}

func newSession(c *client, a auth, own bool) *session {
	s := &session{client: c, own: own, began: time.Now()}
	s.note(a)
	return s
}

// over returns the same login over another client.
func (s *session) over(c *client) *session {
	c.api.SetToken(s.client.api.Token())
	s.client.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	return &session{client: c, own: s.own, began: s.began, ends: s.ends, renewable: s.renewable, lifetime: s.lifetime}
}

func (s *session) note(a auth) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lifetime, s.renewable, s.ends = time.Duration(a.LeaseDuration)*time.Second, a.Renewable, time.Time{}
	if s.lifetime > 0 {
		s.ends = time.Now().Add(s.lifetime)
	}
}

func (s *session) expiry() (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ends, !s.ends.IsZero()
}

const (
	// checkAgain is how long a token that never ends is left alone.
	checkAgain = time.Hour
	// soonest keeps a token of a few seconds from being renewed without pause.
	soonest = 250 * time.Millisecond
)

// untilRenewal returns how long the token may be left alone; due says that two thirds of its life are over.
func (s *session) untilRenewal() (wait time.Duration, due bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ends.IsZero() {
		return checkAgain, false
	}
	wait = time.Until(s.ends) - s.lifetime/3
	return max(wait, soonest), wait <= 0
}

// renew asks for another life of the token. It returns false when a new login is needed instead: the token can't be
// renewed, is no longer known, or comes so near its greatest age that the next life is much shorter than the last.
func (s *session) renew(ctx context.Context) (bool, error) {
	s.mu.Lock()
	renewable, before := s.renewable, s.lifetime
	s.mu.Unlock()
	if !renewable {
		return false, nil
	}
	var answer struct{ Auth auth }
	err := s.client.call(ctx, "renew the token", http.MethodPut, "auth/token/renew-self", nil, struct{}{}, &answer)
	if e, ok := errors.AsType[*source.Error](err); ok && !e.Kind.StoreWide() {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	s.note(answer.Auth)
	return time.Duration(answer.Auth.LeaseDuration)*time.Second > before/2, nil
}

// isDead asks whether the token is no longer known. An error says that this can't be found out.
func (s *session) isDead(ctx context.Context) (bool, error) {
	err := s.client.call(ctx, "look up the token", http.MethodGet, "auth/token/lookup-self", nil, nil, nil)
	if denied(err) {
		return true, nil
	}
	return false, err
}

// end revokes the token if it is ours, as well as it can.
func (s *session) end(ctx context.Context) {
	if s.own {
		s.client.call(ctx, "revoke the token", http.MethodPut, "auth/token/revoke-self", nil, struct{}{}, nil)
	}
	s.client.api.ClearToken()
	s.client.close()
}
