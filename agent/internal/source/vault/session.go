package vault

import (
	"context"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"time"
)

// session is one token, the client that it travels by, and what is known of the mounts that it sees. It is safe for
// concurrent use.
type session struct {
	token   string
	own     bool // the token is ours to revoke
	opaque  bool // Vault doesn't tell when the token ends
	waning  bool // it was said that the token ends and can't be renewed further
	began   time.Time
	poll    time.Duration
	lends   atomic.Bool // an engine was read that may lease what it gives
	client  atomic.Pointer[client]
	life    atomic.Pointer[life]
	mounts  mounts
	opinion opinion
}

// life is how long a token lasts, as Vault said last.
type life struct {
	ends      time.Time // zero: never, or that isn't known
	span      time.Duration
	renewable bool
}

// auth is what Vault says of a token when it is made or renewed.
type auth struct {
	ClientToken   string `json:"client_token"`
	LeaseDuration int64  `json:"lease_duration"`
	Renewable     bool   `json:"renewable"`
	Endless       bool   `json:"-"`
}

func (a auth) life() *life {
	l := &life{span: seconds(a.LeaseDuration), renewable: a.Renewable}
	if !a.Endless {
		l.ends = time.Now().Add(l.span) // also of a token in its last second, which has 0 to live
	}
	return l
}

// seconds returns n of them, none if n is negative, and at most as many as a Duration holds.
func seconds(n int64) time.Duration {
	return time.Duration(min(max(n, 0), math.MaxInt64/int64(time.Second))) * time.Second
}

func newSession(c *client, a auth, own bool) *session {
	s := &session{token: a.ClientToken, own: own, began: time.Now()}
	s.client.Store(c)
	s.life.Store(a.life())
	return s
}

// isOver reports whether the token has ended by the clock.
func (s *session) isOver() bool {
	ends := s.life.Load().ends
	return !ends.IsZero() && time.Now().After(ends)
}

const (
	// checkAgain is how long a token that never ends is left alone.
	checkAgain = time.Hour
	// soonest keeps a token of a few seconds from being renewed without pause.
	soonest = 250 * time.Millisecond
)

// untilRenewal returns how long the token may be left alone; due says that two thirds of its life are over.
func (s *session) untilRenewal() (wait time.Duration, due bool) {
	l := s.life.Load()
	if l.ends.IsZero() {
		return checkAgain, false
	}
	wait = time.Until(l.ends) - l.span/3
	return max(wait, soonest), wait <= 0
}

// renew asks for another life of the token. It returns false when a new login is needed instead: the token can't be
// renewed, is no longer known, or comes so near its greatest age that the next life is much shorter than the last.
func (s *session) renew(ctx context.Context, c *client) (bool, error) {
	before := s.life.Load()
	if !before.renewable {
		return false, nil
	}
	var answer struct{ Auth auth }
	err := c.ask(ctx, request{method: http.MethodPut, path: "auth/token/renew-self", token: s.token, body: map[string]string{}}, &answer)
	if f, refused := undecided(err); refused || f != nil && strings.Contains(f.messages, "past the max TTL") { // which is a 500
		return false, nil
	}
	if err == nil && answer.Auth.ClientToken == "" {
		err = notVault()
	}
	if err != nil {
		return false, err
	}
	after := answer.Auth.life()
	s.life.Store(after)
	return after.span > before.span/10*9, nil
}

const (
	// secondOpinion bounds the question whether Vault answers at all.
	secondOpinion = 1500 * time.Millisecond
	// silence is how long a Vault that didn't answer that isn't asked it again: in an outage each probe would cost two requests.
	silence = 2 * time.Second
)

// opinion is whether Vault answers. Those who want to know at the same time share one question and its answer.
type opinion struct {
	questions flights[struct{}, bool]
	silent    time.Time // when Vault was last asked and didn't answer; for who asks
}

// answers reports whether Vault answers a request that goes the way of every other and is about no secret.
func (s *session) answers(ctx context.Context, c *client) bool {
	yes, _ := s.opinion.questions.do(ctx, struct{}{}, func() (bool, error) {
		if time.Since(s.opinion.silent) < silence {
			return false, nil
		}
		began := time.Now()
		if s.asked(ctx, c) {
			return true, nil
		}
		if ctx.Err() == nil {
			s.opinion.silent = began
		}
		return false, ctx.Err()
	})
	return yes
}

func (s *session) asked(ctx context.Context, c *client) bool {
	bounded, cancel := context.WithTimeout(ctx, secondOpinion)
	defer cancel()
	var answer struct{ Data *struct{ Accessor string } }
	err := c.ask(bounded, request{method: http.MethodGet, path: "auth/token/lookup-self", token: s.token}, &answer)
	_, refused := undecided(err)
	return refused || err == nil && answer.Data != nil
}

// replaced ends a session that another follows. A token that leases were given to is left to end by itself: they are in use,
// and would end with it.
func (s *session) replaced(ctx context.Context) {
	if s.lends.Load() {
		s.client.Load().close()
		return
	}
	s.end(ctx)
}

// farewell bounds the revocation of a token that has been replaced: somebody's read waits for it.
const farewell = 2 * time.Second

// end revokes the token if it is ours, as well as it can, and closes idle connections; reads in flight go on.
func (s *session) end(ctx context.Context) {
	client := s.client.Load()
	if s.own {
		ctx, cancel := context.WithTimeout(ctx, farewell)
		defer cancel()
		client.ask(ctx, request{method: http.MethodPut, path: "auth/token/revoke-self", token: s.token, body: map[string]string{}}, nil)
	}
	client.close()
}
