package vault

import (
	"context"
	"log/slog"
	"time"
)

// ending says which session is doubted, and why.
type ending struct {
	session *session // nil: there is none yet
	cause   cause
	dead    bool // Vault said so
}

type cause int

const (
	expiring cause = iota // its time is up, or will be soon
	denied                // it was not allowed to read something
)

// session returns the one in force, logging in if there is none or its time is up.
func (s *Source) session(ctx context.Context) (*session, error) {
	session := s.current.Load()
	if session != nil && !session.isOver() {
		return session, nil
	}
	return s.replace(ctx, ending{session, expiring, session != nil})
}

// replace returns the session that is in force after the one of e: a newer one, or the same if a new login can't help.
// Those who come with the same ending share one outcome.
func (s *Source) replace(ctx context.Context, e ending) (*session, error) {
	var old *session
	next, err := s.logins.do(ctx, e, func() (*session, error) {
		select {
		case s.turnstile <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		defer func() { <-s.turnstile }()
		if current := s.current.Load(); current != nil && current != e.session {
			return current, nil
		}
		next, err := s.succeed(ctx, e)
		if next != nil && next != e.session {
			old = e.session
		}
		return next, err
	})
	if old != nil {
		old.replaced(context.WithoutCancel(ctx)) // after the others have gone on
	}
	return next, err
}

// succeed logs in if that is called for. The caller is in the turnstile.
func (s *Source) succeed(ctx context.Context, e ending) (*session, error) {
	alive := e.cause == denied && !e.dead // as far as is known
	if alive && !s.worthTrying(e.session) {
		return e.session, nil
	}
	if e.dead {
		s.current.CompareAndSwap(e.session, nil) // nobody needs to find that out again
	}
	fresh, err := s.login(ctx)
	switch {
	case err == nil:
		s.tell(e, fresh)
		s.current.Store(fresh)
		return fresh, nil
	case alive && ctx.Err() == nil:
		return e.session, nil // it still reads what it may
	}
	return nil, err
}

// tell logs a login, and what the user must know of the token that it gained, once.
func (s *Source) tell(e ending, fresh *session) {
	same := e.session != nil && e.session.token == fresh.token
	level := slog.LevelInfo
	if same || e.cause == denied && !e.dead { // which happens again and again
		level = slog.LevelDebug
	}
	s.log.Log(context.Background(), level, "logged in to Vault", "method", string(s.config.Auth), "mount", s.config.AuthMount)
	if fresh.opaque && !same {
		s.log.Warn("the token may not look itself up, so when it ends isn't known and it isn't renewed: give it Vault's default policy if it ends, or another token if it has ended")
	}
	fresh.waning = same && (e.session.waning || e.cause == expiring)
	if fresh.waning && !e.session.waning {
		s.log.Warn("the token ends and can't be renewed further: put another in its place", "ends", fresh.life.Load().ends)
	}
}

const (
	// A session that was denied something is replaced at this age: policies that were added to a role reach only new tokens,
	// and a Vault before 1.17 doesn't say that a token is dead.
	patience = time.Minute
	// Each such login makes the next one wait twice as long, up to this, until an hour has passed without any: a path may be
	// denied for good, and a secret-id allow only so many.
	maxPatience = 15 * time.Minute
)

// doubt is when a session that was denied something was last replaced for it.
type doubt struct {
	at   time.Time
	wait time.Duration
}

// worthTrying reports whether a live session that was denied something is old enough to be replaced. One whose token Vault
// tells nothing of may be dead: it is replaced once its file holds another.
func (s *Source) worthTrying(session *session) bool {
	if s.config.Auth == Token && s.config.Token != "" {
		return false
	}
	if session.opaque {
		if token, err := credential("AGENT_TOKEN_FILE", s.config.TokenFile); err == nil && token != session.token {
			return true
		}
	}
	now, d := time.Now(), &s.doubt
	if d.wait == 0 || now.Sub(d.at) > 4*maxPatience {
		d.wait = patience
	}
	since := session.began
	if d.at.After(since) {
		since = d.at
	}
	if now.Sub(since) < d.wait {
		return false
	}
	d.at, d.wait = now, min(2*d.wait, maxPatience)
	return true
}

// mendCertificates gives a session another client if the one that it has failed over a certificate, since the files may
// hold new ones by now. The token stays. Why there is no other is said once, until it changes or a request succeeds.
func (s *Source) mendCertificates(session *session, failed *client, err error) {
	if err == nil {
		s.noClient.Store(nil)
	}
	if !isCertificate(err) {
		return
	}
	s.rebuilding.Lock()
	defer s.rebuilding.Unlock()
	if session.client.Load() != failed {
		return
	}
	fresh, err := newClient()
	if err != nil {
		reason := err.Error()
		if said := s.noClient.Swap(&reason); said == nil || *said != reason {
			s.log.Warn("the connection to Vault can't be made anew", "reason", reason)
		}
		return
	}
	session.client.Store(fresh)
	failed.close()
}
