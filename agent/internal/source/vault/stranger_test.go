package vault

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// strange makes the proxy answer what is asked at a path with that end with JSON that Vault never made, as often as times says.
func (p *proxy) strange(end, body string, times int) {
	var answered atomic.Int64
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, end) && answered.Add(1) <= int64(times) {
			w.Write([]byte(body))
			return
		}
		p.forward.ServeHTTP(w, r)
	})
}

// A maintenance page in JSON says nothing about a token, a login or a mount.
func TestJSONThatIsNotVaultsIsTakenForNone(t *testing.T) {
	const page = `{"status":"maintenance"}`
	v := realVault(t)
	path, policyName := secretFor(t, v)
	for _, c := range []struct{ what, end, body string }{
		{"a login", "/login", page},
		{"what a wrapping token holds", "/wrapping/lookup", page},
		{"an unwrapping", "/wrapping/unwrap", page},
		{"a mount", "/ui/mounts/" + path, page},
		{"a mount without its slash", "/ui/mounts/" + path, `{"data":{"path":"` + strings.TrimSuffix(path, "/gemini") + `","type":"kv"}}`},
	} {
		t.Run(c.what, func(t *testing.T) {
			p := startProxy(t, v.Addr)
			t.Setenv("VAULT_ADDR", p.url())
			mount, name, roleID := role(t, v, policyName, nil)
			wrapped := file(t, wrap(t, v, "auth/"+mount+"/role/"+name+"/secret-id"))
			s := open(t, Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: wrapped})
			p.strange(c.end, c.body, 1)
			if e := checkKind(t, s, path, source.Unavailable); !strings.Contains(e.Reason, "is not Vault") {
				t.Errorf("%q", e.Reason)
			}
			expect(t, s, path, "one")
		})
	}
	t.Run("a token", func(t *testing.T) {
		s, p := root(t)
		p.strange("/lookup-self", page, 1)
		checkKind(t, s, path, source.Unavailable)
		expect(t, s, path, "one")
	})
}

// An answer that isn't Vault's ends no renewal: the token would be taken for one that never ends, until it has.
func TestARenewalThatVaultDidNotAnswerIsMadeAgain(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, map[string]any{"token_ttl": "3s", "token_max_ttl": "1h"})
	expect(t, s, path, "one")
	p.strange("/renew-self", `{"status":"maintenance"}`, 1)
	wait, err := s.Keep(t.Context())
	for ; err == nil && wait < time.Minute; wait, err = s.Keep(t.Context()) {
		time.Sleep(wait)
	}
	if !isKind(err, source.Unavailable) {
		t.Fatalf("%v, again in %v", err, wait)
	}
	if _, ends := s.TokenExpiry(); !ends {
		t.Error("the token is taken for one that never ends")
	}
	keepUntil(t, s, func() bool { return p.count("renew-self") >= 2 })
	if n := p.count("/login"); n != 1 {
		t.Errorf("%d logins, want 1", n)
	}
	expect(t, s, path, "one")
}
