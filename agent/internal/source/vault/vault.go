// Package vault reads secrets from HashiCorp Vault: it logs in, stays logged in, and reads KV version 1 and 2, and any
// other engine that answers a read.
//
// All VAULT_* variables are honoured, since vault/api reads them itself each time a client is built, which is at each
// login and after each certificate error: rotated CAs and client certificates take effect. vault/api's own retries are
// off, because package turn owns time.
package vault

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// Method is a way to log in.
type Method string

// Methods.
const (
	Token      Method = "token"      // the token in TokenFile, or VAULT_TOKEN
	AppRole    Method = "approle"    // RoleIDFile and SecretIDFile, whose secret-id may be response-wrapped
	Kubernetes Method = "kubernetes" // the service account token in JWTFile, as AuthRole
	JWT        Method = "jwt"        // the token in JWTFile, as AuthRole or the mount's default role
	Cert       Method = "cert"       // VAULT_CLIENT_CERT and VAULT_CLIENT_KEY, as AuthRole if it is set
)

// Config says how to log in. The files are read at every login.
type Config struct {
	Auth Method
	// AuthMount is where the method is mounted; empty: at its own name.
	AuthMount string
	AuthRole  string
	// TokenFile defaults to .vault-token in the home directory.
	TokenFile, RoleIDFile, SecretIDFile, JWTFile string
	// Token is used by the method token in place of a file.
	Token string
}

// Source is a source.Source, source.Keeper and source.Historian. Use New.
type Source struct {
	config Config
	log    *slog.Logger

	mu      sync.Mutex // held through a login, so that those who come meanwhile share it
	session *session   // nil before the first login, and once it is known to be over
	secret  unwrapped
}

// patience is the age from which a session that was denied something is replaced by a new one: policies that were added
// to a role reach only new tokens.
const patience = time.Minute

// New returns a source that logs in when it is first used. Its error says what is wrong with VAULT_* variables.
func New(c Config, log *slog.Logger) (*Source, error) {
	if c.AuthMount == "" {
		c.AuthMount = string(c.Auth)
	}
	client, err := newClient()
	if err != nil {
		return nil, err
	}
	client.close()
	return &Source{config: c, log: log}, nil
}

// Fetch implements source.Source.
func (s *Source) Fetch(ctx context.Context, path string) (*source.Record, error) {
	return s.read(ctx, path, 0)
}

// FetchVersion implements source.Historian. Only KV version 2 has earlier versions.
func (s *Source) FetchVersion(ctx context.Context, path string, number int) (*source.Record, error) {
	return s.read(ctx, path, number)
}

func (s *Source) read(ctx context.Context, path string, version int) (*source.Record, error) {
	current, err := s.current(ctx)
	if err != nil {
		return nil, err
	}
	record, err := current.read(ctx, path, version)
	if !denied(err) || ctx.Err() != nil {
		s.forgetAfterTLSError(current, err)
		return record, err
	}
	dead, checkErr := current.isDead(ctx)
	if checkErr != nil {
		return nil, checkErr
	}
	if !dead && (s.config.Auth == Token || time.Since(current.began) < patience) {
		return nil, err
	}
	if current, err = s.replace(ctx, current); err != nil {
		return nil, err
	}
	return current.read(ctx, path, version)
}

// Keep implements source.Keeper: it renews the token when two thirds of its life are over, and logs in anew when it can't
// be renewed, or not for long enough to matter.
func (s *Source) Keep(ctx context.Context) (time.Duration, error) {
	current, err := s.current(ctx)
	if err != nil {
		return 0, err
	}
	if wait, due := current.untilRenewal(); !due {
		return wait, nil
	}
	if renewed, err := current.renew(ctx); err != nil {
		s.forgetAfterTLSError(current, err)
		return 0, err
	} else if !renewed {
		if current, err = s.replace(ctx, current); err != nil {
			return 0, err
		}
	}
	wait, _ := current.untilRenewal()
	return wait, nil
}

// TokenExpiry returns when the token ends unless it is renewed; false if it never does, or there is none.
func (s *Source) TokenExpiry() (time.Time, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session == nil {
		return time.Time{}, false
	}
	return s.session.expiry()
}

// Close revokes the token, if it is one that the source logged in for. Nothing may be fetched afterwards.
func (s *Source) Close(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.secret.value.Clear()
	if s.session != nil {
		s.session.end(ctx)
		s.session = nil
	}
}

// current returns the session, logging in if there is none. Calls that come meanwhile wait and share it.
func (s *Source) current(ctx context.Context) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil {
		return s.session, nil
	}
	return s.loginLocked(ctx)
}

// replace logs in anew, unless somebody has replaced the old session already.
func (s *Source) replace(ctx context.Context, old *session) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.session != nil && s.session != old {
		return s.session, nil
	}
	fresh, err := s.loginLocked(ctx)
	if err == nil && old != fresh {
		old.end(ctx)
	}
	return fresh, err
}

func (s *Source) loginLocked(ctx context.Context) (*session, error) {
	fresh, err := s.login(ctx)
	if err != nil {
		return nil, err
	}
	s.session = fresh
	s.log.Info("logged in to Vault", "method", string(s.config.Auth), "mount", s.config.AuthMount)
	return fresh, nil
}

// forgetAfterTLSError makes the next read build its client anew, since a certificate may have been rotated.
func (s *Source) forgetAfterTLSError(current *session, err error) {
	if !certificateError(err) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if fresh, err := newClient(); err == nil && s.session == current {
		s.session = current.over(fresh)
	}
}

// unwrapped is a secret-id that came wrapped. A wrapping token works once, so what it held is kept, in memory only.
type unwrapped struct {
	token string       // the wrapping token that it came in
	value secret.Value // the secret-id
}
