// Package vault reads secrets from HashiCorp Vault: it logs in, stays logged in, and reads KV version 1 and 2, and any
// other engine that answers a read.
//
// All VAULT_* variables are honoured, since vault/api reads them itself each time a client is built, which is at each
// login and after each certificate error: rotated CAs and client certificates take effect. Credentials are read from their
// files at each login. vault/api's own retries are off, because package turn owns time: a request that failed isn't made again
// in here. One whose answer is late is, over another connection, if it changes nothing in Vault.
//
// What Vault or a proxy answered is never passed on, since it may quote what was sent. Errors say it in words of our own.
//
// Rejected: vault/api's LifetimeWatcher, which ends silently when a renewal is denied; the api/auth/* modules, of which
// kubernetes reads its token once and approle unwraps a single-use token at each login; Logical().Read, which makes a
// string, that nobody can clear, of every field.
package vault

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unicode"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// Method is a way to log in.
type Method string

// Methods.
const (
	Token      Method = "token"      // the token in TokenFile, or Token
	AppRole    Method = "approle"    // RoleIDFile and SecretIDFile, which may be response-wrapped, or missing if the role binds none
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
	// TokenFile defaults to .vault-token in the home directory, where "vault login" leaves it.
	TokenFile, RoleIDFile, SecretIDFile, JWTFile string
	// Token is used by the method token in place of a file. Unlike a file it can't be rotated.
	Token string
	// Poll is how often the caller reads by itself. What KV version 1 says may only bring a read forward.
	Poll time.Duration
}

// Source is a source.Source, source.Keeper and source.Historian. Use New. It is safe for concurrent use and owns no
// goroutine: whoever finds work to do does it, and the others wait for the outcome or their own context.
type Source struct {
	config Config
	log    *slog.Logger

	current   atomic.Pointer[session] // nil before the first login, and once the last is known to be over
	logins    flights[ending, *session]
	turnstile chan struct{} // capacity one: who is in it may replace current
	secretID  unwrapped     // for who is in the turnstile, as are the next two
	refusal   refusal
	doubt     doubt

	rebuilding sync.Mutex
	noClient   atomic.Pointer[string] // why there is no client with other certificates, as was said last
}

// New returns a source that logs in when it is first used. Its error says what is wrong with VAULT_* variables, or that
// the method is none; it asks Vault nothing. A nil logger discards.
func New(c Config, log *slog.Logger) (*Source, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if c.AuthMount == "" {
		c.AuthMount = string(c.Auth)
	}
	switch c.Auth {
	case AppRole, Kubernetes, JWT, Cert:
	case Token:
		c.Token = strings.TrimSpace(c.Token)
		if strings.ContainsFunc(c.Token, unicode.IsControl) {
			return nil, errors.New("VAULT_TOKEN holds more than one line, or no token: put the token into AGENT_TOKEN_FILE")
		}
		if c.Token == "" && c.TokenFile == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, errors.New("there is no token, and no home directory to look for one: set AGENT_TOKEN_FILE")
			}
			c.TokenFile = filepath.Join(home, ".vault-token")
		}
	default:
		return nil, errors.New("AGENT_AUTH is none of token, approle, kubernetes, jwt, cert")
	}
	if err := CheckEnvironment(); err != nil {
		return nil, err
	}
	return &Source{config: c, log: log, turnstile: make(chan struct{}, 1)}, nil
}

// CheckEnvironment says what is wrong with VAULT_* variables, as New does. It quotes no value.
func CheckEnvironment() error {
	client, err := newClient()
	if err == nil {
		client.close()
	}
	return err
}

// Fetch implements source.Source. A token that has died is replaced, and the read made once more.
func (s *Source) Fetch(ctx context.Context, path string) (*source.Record, error) {
	return s.fetch(ctx, path, 0)
}

// FetchVersion implements source.Historian. Only KV version 2 has earlier versions.
func (s *Source) FetchVersion(ctx context.Context, path string, number int) (*source.Record, error) {
	return s.fetch(ctx, path, number)
}

func (s *Source) fetch(ctx context.Context, path string, version int) (*source.Record, error) {
	record, err := s.read(ctx, path, version)
	if err != nil {
		return nil, outward(ctx, err)
	}
	return record, nil
}

func (s *Source) read(ctx context.Context, path string, version int) (*source.Record, error) {
	session, err := s.session(ctx)
	if err != nil {
		return nil, err
	}
	record, err := s.readIn(ctx, session, path, version)
	if kindOf(err) != source.Denied {
		return record, err
	}
	next, replaceErr := s.replace(ctx, ending{session, denied, saysDead(err)})
	switch {
	case replaceErr != nil:
		return nil, replaceErr
	case next == session:
		return nil, err
	}
	return s.readIn(ctx, next, path, version)
}

func (s *Source) readIn(ctx context.Context, session *session, path string, version int) (*source.Record, error) {
	client := session.client.Load()
	record, err := session.read(ctx, client, path, version)
	s.mendCertificates(session, client, err)
	return record, err
}

// Keep implements source.Keeper: it renews the token when two thirds of its life are over, and logs in anew when it can't
// be renewed, or not for long enough to matter.
func (s *Source) Keep(ctx context.Context) (time.Duration, error) {
	next, err := s.keep(ctx)
	return next, outward(ctx, err)
}

func (s *Source) keep(ctx context.Context) (time.Duration, error) {
	session, err := s.session(ctx)
	if err != nil {
		return 0, err
	}
	if wait, due := session.untilRenewal(); !due {
		return wait, nil
	}
	client := session.client.Load()
	renewed, err := session.renew(ctx, client)
	s.mendCertificates(session, client, err)
	if err != nil {
		return 0, err
	}
	if !renewed {
		if session, err = s.replace(ctx, ending{session, expiring, false}); err != nil {
			return 0, err
		}
	}
	wait, _ := session.untilRenewal()
	return wait, nil
}

// TokenExpiry returns when the token ends unless it is renewed; false if it never does, or there is none. It never blocks.
func (s *Source) TokenExpiry() (time.Time, bool) {
	session := s.current.Load()
	if session == nil {
		return time.Time{}, false
	}
	ends := session.life.Load().ends
	return ends, !ends.IsZero()
}

// Close revokes the token, if it is one that the source logged in for, as far as ctx allows; what it leased ends with it.
// Nothing may be fetched meanwhile or afterwards.
func (s *Source) Close(ctx context.Context) {
	s.secretID.clear()
	s.refusal.clear()
	if session := s.current.Swap(nil); session != nil {
		session.end(ctx)
	}
}
