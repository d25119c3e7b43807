package vault

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// Vault locks a role-id out for 15 minutes after five wrong secret-ids, and with it all agents of that role.
func TestAWrongSecretIDDoesNotLockTheRoleOut(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	p := startProxy(t, v.Addr)
	t.Setenv("VAULT_ADDR", p.url())
	mount, name, roleID := role(t, v, policyName, nil)
	id := file(t, "canary")
	c := Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: id}
	s := open(t, c)
	for range 20 {
		checkRefused(t, s, path, "secret-id is not valid")
	}
	if n := p.count("/login"); n != 1 {
		t.Errorf("the same wrong secret-id was shown to Vault %d times", n)
	}
	good := secretID(t, v, mount, name)
	expect(t, open(t, Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: file(t, good)}), path, "one")
	rewrite(t, id, good)
	expect(t, s, path, "one")

	// A good one that ends later is refused and remembered as well.
	write(t, v, "auth/"+mount+"/role/"+name+"/secret-id/destroy", map[string]any{"secret_id": good})
	p.forget()
	revoke(t, v, s)
	for range 3 {
		checkRefused(t, s, path, "secret-id is not valid")
	}
	if n := p.count("/login"); n != 1 {
		t.Errorf("the secret-id that had ended was shown to Vault %d times", n)
	}
}

func TestALockedRoleIDSaysThatItMayBeLocked(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	path, policyName := secretFor(t, v)
	mount, name, roleID := role(t, v, policyName, nil)
	for range 5 {
		c := Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: file(t, "canary-"+unique())}
		checkKind(t, open(t, c), path, source.Unauthenticated)
	}
	c := Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: file(t, secretID(t, v, mount, name))}
	checkRefused(t, open(t, c), path, "locked the role-id out")
}

func TestARefusedPairIsShownRarely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r refusal
		body := map[string]string{"role_id": "r", "secret_id": "canary"}
		var shown []time.Time
		for range 2 * 3600 {
			if !r.stands(body) {
				shown = append(shown, time.Now())
				r.note(body)
			}
			time.Sleep(time.Second) // of the bubble
		}
		run := 1 // as Vault counts
		for i := 1; i < len(shown); i++ {
			if run++; shown[i].Sub(shown[i-1]) > 15*time.Minute {
				run = 1
			}
			if run > 3 {
				t.Fatalf("shown %d times with less than 15 minutes between", run)
			}
		}
		if len(shown) < 5 {
			t.Errorf("shown %d times in two hours: it was given up", len(shown))
		}
		if r.stands(map[string]string{"role_id": "r", "secret_id": "another"}) {
			t.Error("another secret-id has to wait")
		}
	})
}
