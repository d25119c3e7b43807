package vault

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/examples/logtest"
)

// logs is what a driver logs at level info and above.
type logs struct{ logtest.Page }

func (l *logs) count(what string) int { return strings.Count(l.String(), what) }

// openLogged is open with what is logged.
func openLogged(t testing.TB, c Config) (*Source, *logs) {
	t.Helper()
	l := &logs{}
	s := must[*Source](t)(New(c, slog.New(slog.NewTextHandler(io.MultiWriter(l, t.Output()), nil))))
	t.Cleanup(func() { s.Close(context.Background()) })
	return s, l
}

const loggedIn, waning = "logged in to Vault", "can't be renewed further"

// A token that somebody else made comes to its greatest age. It has an end until then, in its last second as well, and that
// is said once.
func TestATokenThatComesToItsEndSaysSoOnce(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	path, policyName := secretFor(t, v)
	token := newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}, TTL: "3s", ExplicitMaxTTL: "5s"})
	s, log := openLogged(t, Config{Auth: Token, Token: token})
	expect(t, s, path, "one")
	latest := time.Now().Add(8 * time.Second) // a busy machine learns of it late
	var err error
	for next := time.Duration(0); err == nil && next < time.Minute; next, err = s.Keep(t.Context()) {
		time.Sleep(next)
		if ends, ok := s.TokenExpiry(); s.current.Load() != nil && (!ok || ends.After(latest)) {
			t.Fatalf("it ends %v, %t; its last second is over at %v", ends, ok, latest)
		}
	}
	if !isKind(err, source.Unauthenticated) {
		t.Errorf("%v, want unauthenticated", err)
	}
	if n, m := log.count(loggedIn), log.count(waning); n != 1 || m != 1 {
		t.Errorf("%d logins and %d warnings in the log, want one each", n, m)
	}
	if _, ok := s.TokenExpiry(); ok {
		t.Error("a token that has ended still ends")
	}
}

func TestOnlyATokenWithoutAnExpiryNeverEnds(t *testing.T) {
	s, p := root(t)
	for answer, never := range map[string]bool{
		`{"data":{"ttl":0,"expire_time":null}}`:                                     true,
		`{"data":{"ttl":0,"expire_time":"2026-11-26T11:30:34Z"}}`:                   false,
		`{"data":{"ttl":60,"expire_time":"2026-11-26T11:30:34Z","renewable":true}}`: false,
	} {
		p.strange("/lookup-self", answer, 1)
		session := must[*session](t)(s.login(t.Context()))
		if session.life.Load().ends.IsZero() != never {
			t.Errorf("%s: it ends %v", answer, session.life.Load().ends)
		}
	}
}

// Without Vault's default policy a token may not look itself up. What it may read, it reads.
func TestATokenThatMayNotLookItselfUpReadsAllTheSame(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	path, policyName := secretFor(t, v)
	token := newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}, NoDefaultPolicy: true, TTL: "1h"})
	tokenFile := file(t, token)
	s, log := openLogged(t, Config{Auth: Token, TokenFile: tokenFile})
	expect(t, s, path, "one")
	if next, err := s.Keep(t.Context()); err != nil || next != checkAgain {
		t.Errorf("%v, %v", next, err)
	}
	if _, ok := s.TokenExpiry(); ok {
		t.Error("it has an expiry that nobody told")
	}
	s.current.Load().began = time.Now().Add(-2 * patience)
	checkKind(t, s, strings.TrimSuffix(path, "gemini")+"other", source.Denied)
	expect(t, s, path, "one")
	if n, m := log.count(loggedIn), log.count("may not look itself up"); n != 1 || m != 1 {
		t.Errorf("%d logins and %d warnings in the log, want one each", n, m)
	}
	revoke(t, v, s)
	checkRefused(t, s, path, "doesn't know the token")
	rewrite(t, tokenFile, newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}}))
	expect(t, s, path, "one")
	if n := log.count(loggedIn); n != 2 {
		t.Errorf("%d logins in the log, want 2", n)
	}
}

// Of a token that may not look itself up, a Vault before 1.17 tells nobody that it is dead.
func TestATokenOfWhichNothingIsKnownIsReplacedOnceItsFileHoldsAnother(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	path, policyName := secretFor(t, v)
	tokenFile := file(t, newToken(t, v, api.TokenCreateRequest{Policies: []string{"nothing"}, NoDefaultPolicy: true}))
	s := open(t, Config{Auth: Token, TokenFile: tokenFile})
	checkKind(t, s, path, source.Denied)
	rewrite(t, tokenFile, newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}}))
	expect(t, s, path, "one")
}

// A path that is denied for good costs a login now and then, and no line of the log.
func TestALoginForADeniedPathIsNoLineOfTheLog(t *testing.T) {
	v := realVault(t)
	p := startProxy(t, v.Addr)
	t.Setenv("VAULT_ADDR", p.url())
	path, policyName := secretFor(t, v)
	mount, name, roleID := role(t, v, policyName, nil)
	s, log := openLogged(t, Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: file(t, secretID(t, v, mount, name))})
	expect(t, s, path, "one")
	s.current.Load().began = time.Now().Add(-2 * patience)
	checkKind(t, s, strings.TrimSuffix(path, "gemini")+"other", source.Denied)
	if n, m := p.count("/login"), log.count(loggedIn); n != 2 || m != 1 {
		t.Errorf("%d logins, %d of them in the log: want 2 and 1", n, m)
	}
	revoke(t, v, s)
	expect(t, s, path, "one")
	if n := log.count(loggedIn); n != 2 {
		t.Errorf("a login for a dead token is not in the log: %d", n)
	}
}
