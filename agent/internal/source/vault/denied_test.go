package vault

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// A role that gets another policy gives it to new tokens only, so an old session that is denied something is replaced.
func TestAnOldSessionThatIsDeniedSomethingIsReplaced(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, rolePath := appRoleSource(t, v, policy(t, v, unique()), nil)
	checkKind(t, s, path, source.Denied)
	write(t, v, rolePath, map[string]any{"token_policies": policyName})
	checkKind(t, s, path, source.Denied)
	if n := p.count("/login"); n != 1 {
		t.Errorf("a young session was replaced: %d logins", n)
	}
	s.current.Load().began = time.Now().Add(-2 * time.Minute)
	expect(t, s, path, "one")
	if n := p.count("/login"); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
}

func TestALiveSessionStaysWhenTheNewLoginFails(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, _, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	rewrite(t, s.config.SecretIDFile, "canary")
	session := s.current.Load()
	session.began = time.Now().Add(-2 * time.Minute)
	checkKind(t, s, strings.TrimSuffix(path, "gemini")+"other", source.Denied)
	if s.current.Load() != session {
		t.Error("the session that still reads was given up")
	}
	expect(t, s, path, "one")
}

// A path that is denied for good must not use up a secret-id that allows a number of logins.
func TestLoginsThatHelpNobodyBecomeRare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Source{config: Config{Auth: AppRole}}
		current := &session{began: time.Now()}
		logins := 0
		for range 24 * 60 {
			time.Sleep(time.Minute) // of the bubble
			if s.worthTrying(current) {
				logins++
				current = &session{began: time.Now()}
			}
		}
		if logins < 24*3 || logins > 24*5 {
			t.Errorf("%d logins in a day of denied reads every minute", logins)
		}
	})
}

// Without the default policy a token may not look itself up. That doesn't make it a dead one.
func TestADeniedReadOfATokenWithoutTheDefaultPolicyCostsNoLogin(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, map[string]any{"token_no_default_policy": true})
	for range 3 {
		checkKind(t, s, strings.TrimSuffix(path, "gemini")+"other", source.Denied)
		expect(t, s, path, "one")
	}
	if n := p.count("/login"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	revoke(t, v, s)
	expect(t, s, path, "one")
}

// Before version 1.17 Vault says of a dead token what it says of a path that is denied.
func TestARevokedTokenOfAnOldVaultIsReplacedOnceItIsNotYoung(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	old := s.current.Load().token
	revoke(t, v, s)
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Vault-Token") == old {
			w.WriteHeader(http.StatusForbidden)
			w.Write([]byte(`{"errors":["permission denied"]}`))
			return
		}
		p.forward.ServeHTTP(w, r)
	})
	checkKind(t, s, path, source.Denied)
	s.current.Load().began = time.Now().Add(-2 * time.Minute)
	expect(t, s, path, "one")
}
