package vault

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

// revoke takes a driver's token away behind its back.
func revoke(t testing.TB, v *vaulttest.Server, s *Source) {
	t.Helper()
	if err := v.Client().Auth().Token().RevokeTree(s.current.Load().token); err != nil {
		t.Fatal(err)
	}
}

// alive reports whether Vault still knows a token.
func alive(v *vaulttest.Server, token string) bool {
	_, err := v.Client().Auth().Token().Lookup(token)
	return err == nil
}

// appRoleSource logs in through a proxy, as a role with these settings.
func appRoleSource(t testing.TB, v *vaulttest.Server, policyName string, settings map[string]any) (*Source, *proxy, string) {
	t.Helper()
	p := startProxy(t, v.Addr)
	t.Setenv("VAULT_ADDR", p.url())
	mount, name, roleID := role(t, v, policyName, settings)
	c := Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: file(t, secretID(t, v, mount, name))}
	return open(t, c), p, "auth/" + mount + "/role/" + name
}

func TestARevokedTokenIsReplacedAndTheReadSucceeds(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	revoke(t, v, s)
	expect(t, s, path, "one")
	if n := p.count("/login"); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
	// With 32 readers at once there is still one login for the dead token.
	p.forget()
	revoke(t, v, s)
	fetchAll(t, s, 32, func(int) string { return path })
	if n := p.count("/login"); n != 1 {
		t.Errorf("32 readers with one dead token made %d logins", n)
	}
}

func fetchAll(t testing.TB, s *Source, readers int, path func(int) string) {
	t.Helper()
	var all sync.WaitGroup
	failures := make(chan error, readers)
	for i := range readers {
		all.Go(func() {
			if _, err := s.Fetch(context.Background(), path(i)); err != nil {
				failures <- err
			}
		})
	}
	all.Wait()
	close(failures)
	for err := range failures {
		t.Error(err)
	}
}

func TestAThousandReadsCostOneLoginAndOneQuestionForTheMount(t *testing.T) {
	const secrets = 1000
	v := realVault(t)
	mount := mountKV(t, v, "2")
	for i := range secrets {
		write(t, v, fmt.Sprintf("%s/data/s%d", mount, i), map[string]any{"data": map[string]any{"k": "one", "other": "two"}})
	}
	t.Setenv("VAULT_CLIENT_TIMEOUT", "2m") // a thousand at once are a lot for a slow machine
	s, p, _ := appRoleSource(t, v, policy(t, v, unique(), mount+"/data/*"), nil)
	fetchAll(t, s, secrets, func(i int) string { return fmt.Sprintf("%s/s%d", mount, i) })
	for what, want := range map[string]int{"/login": 1, "sys/internal/ui/mounts": 1} {
		if n := p.count(what); n != want {
			t.Errorf("%s was asked %d times, want %d", what, n, want)
		}
	}
	// A thousand at once may make a slow machine's answers late, and then a few are asked for again.
	if n := p.count("GET /v1/" + mount); n < secrets || n > secrets+secrets/50 {
		t.Errorf("%d secrets were read %d times", secrets, n)
	}
}

// What the first reader of a mount may not see says nothing about the others.
func TestADeniedPathDoesNotSpoilItsNeighbours(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, _, _ := appRoleSource(t, v, policyName, nil)
	prefix := strings.TrimSuffix(path, "gemini")
	var all sync.WaitGroup
	for i := range 32 {
		all.Go(func() {
			if i%2 == 0 {
				if _, err := s.Fetch(t.Context(), path); err != nil {
					t.Error(err)
				}
			} else if _, err := s.Fetch(t.Context(), prefix+"other"); !isKind(err, source.Denied) {
				t.Errorf("%v, want denied", err)
			}
		})
	}
	all.Wait()
}

func isKind(err error, kind source.Kind) bool {
	e, ok := errors.AsType[*source.Error](err)
	return ok && e.Kind == kind
}

func TestATokenIsRenewedUntilItsGreatestAgeThenReplacedAndRevoked(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, map[string]any{"token_ttl": "3s", "token_max_ttl": "5s"})
	expect(t, s, path, "one")
	first := s.current.Load().token
	if expiry, ok := s.TokenExpiry(); !ok || time.Until(expiry) > 3*time.Second {
		t.Errorf("it ends %v, %t; its TTL is 3 s", expiry, ok)
	}
	keepUntil(t, s, func() bool { return s.current.Load().token != first })
	if p.count("renew-self") == 0 {
		t.Error("it was never renewed")
	}
	expect(t, s, path, "one")
	eventually(t, "the replaced token is revoked", func() bool { return !alive(v, first) })
}

// keepUntil calls Keep as turn does, whenever it wants to be called, until done.
func keepUntil(t testing.TB, s *Source, done func() bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for !done() {
		next, err := s.Keep(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if done() {
			return
		}
		select {
		case <-time.After(next):
		case <-deadline:
			t.Fatal("it never came to that")
		}
	}
}

func TestAPeriodicTokenIsRenewedForEver(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, map[string]any{"token_period": "2s"})
	keepUntil(t, s, func() bool { return p.count("renew-self") >= 3 })
	if n := p.count("/login"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	expect(t, s, path, "one")
}

func TestATokenThatCannotBeRenewedIsReplacedInTime(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, map[string]any{"token_type": "batch", "token_ttl": "3s"})
	expect(t, s, path, "one")
	keepUntil(t, s, func() bool { return p.count("/login") >= 2 })
	if p.count("renew-self") != 0 {
		t.Error("a batch token was asked to be renewed")
	}
	expect(t, s, path, "one")
}

func TestKeepLogsInAnewWhenTheTokenIsGone(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, map[string]any{"token_ttl": "3s", "token_max_ttl": "1h"})
	expect(t, s, path, "one")
	revoke(t, v, s)
	keepUntil(t, s, func() bool { return p.count("/login") >= 2 })
	expect(t, s, path, "one")
}

func TestANewTokenInTheFileTakesOverWhenTheOldOneDies(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	path, policyName := secretFor(t, v)
	token := func() string { return newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}}) }
	tokenFile := file(t, token())
	s := open(t, Config{Auth: Token, TokenFile: tokenFile})
	expect(t, s, path, "one")
	revoke(t, v, s)
	checkRefused(t, s, path, "AGENT_TOKEN_FILE")
	checkRefused(t, s, path, "AGENT_TOKEN_FILE")
	next := token()
	rewrite(t, tokenFile, next)
	expect(t, s, path, "one")
	s.Close(t.Context())
	if !alive(v, next) {
		t.Error("a token that somebody else made was revoked")
	}
}

func TestCloseRevokesTheTokenThatWasLoggedInFor(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, _, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	token := s.current.Load().token
	s.Close(t.Context())
	s.Close(t.Context())
	if alive(v, token) {
		t.Error("the token lives on")
	}
}

func TestACallerWhoGivesUpDoesNotTakeTheOthersWithHim(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	waiting := p.makeHang()
	impatient, cancel := context.WithCancel(t.Context())
	gaveUp, served := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := s.Fetch(impatient, path)
		gaveUp <- err
	}()
	<-waiting
	go func() {
		_, err := s.Fetch(t.Context(), path)
		served <- err
	}()
	if _, ok := s.TokenExpiry(); ok {
		t.Error("there is no token, and it has an expiry")
	}
	cancel()
	if err := <-gaveUp; !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want the context's error", err)
	}
	p.resume()
	if err := <-served; err != nil {
		t.Errorf("the other one got %v", err)
	}
}

func TestTheNamespaceGoesOutWithEveryRequest(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	t.Setenv("VAULT_NAMESPACE", "team/a")
	s, p, _ := appRoleSource(t, v, policyName, nil)
	s.Fetch(t.Context(), path) // the community edition may refuse it
	all := p.all()
	if len(all) == 0 {
		t.Fatal("nothing was asked")
	}
	for _, a := range all {
		if strings.Trim(a.namespace, "/") != "team/a" {
			t.Errorf("%s went out for the namespace %q", a.what, a.namespace)
		}
	}
}

func TestNoAnswerWithinVaultsTimeoutIsUnavailable(t *testing.T) {
	t.Setenv("VAULT_CLIENT_TIMEOUT", "1s")
	v := realVault(t)
	t.Setenv("VAULT_CLIENT_TIMEOUT", "1s")
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	p.makeHang()
	if e := checkKind(t, s, path, source.Unavailable); !strings.Contains(e.Reason, "within 1s") {
		t.Errorf("%q", e.Reason)
	}
	p.resume()
	expect(t, s, path, "one")
}

func TestAnAnswerWithoutATokenIsARefusal(t *testing.T) {
	v := realVault(t)
	s, p, _ := appRoleSource(t, v, policy(t, v, unique()), nil)
	p.answer(func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"request_id":"x","auth":{"client_token":"","mfa_requirement":{"mfa_request_id":"canary"}}}`))
	})
	checkRefused(t, s, "x/y", "second factor")
}
