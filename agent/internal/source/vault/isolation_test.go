package vault

import (
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// What goes wrong behind one path of a Vault that is well says nothing about the store: other paths must not wait for it.
func TestAPathThatFailsAloneFailsAlone(t *testing.T) {
	v := realVault(t)
	s, _ := root(t)
	mount := mountKV(t, v, "2")
	parts := map[string]any{}
	for i := range 10 {
		parts[string(rune('a'+i))] = strings.Repeat("v", 500<<10)
	}
	write(t, v, mount+"/data/huge", map[string]any{"data": parts})

	database := unique()
	if err := v.Client().Sys().Mount(database, &api.MountInput{Type: "database"}); err != nil {
		t.Fatal(err)
	}
	write(t, v, database+"/config/down", map[string]any{
		"plugin_name": "postgresql-database-plugin", "verify_connection": false, "allowed_roles": "*",
		"connection_url": "postgresql://{{username}}:{{password}}@127.0.0.1:1/canary", "username": "canary", "password": "canary",
	})
	write(t, v, database+"/roles/app", map[string]any{"db_name": "down", "creation_statements": "canary"})

	for _, c := range []struct {
		what, path, reason string
		kind               source.Kind
	}{
		{"an engine whose database is down", database + "/creds/app", "only this path fails, Vault can't answer (HTTP 500)", source.Failed},
		{"a secret of 5 MB", mount + "/huge", "only this path fails, the answer is longer than 4 MiB", source.Failed},
		{"what is no secret", "sys/seal-status", "no fields", source.Invalid},
	} {
		e := checkKind(t, s, c.path, c.kind)
		if !strings.Contains(e.Reason, c.reason) || e.Path != c.path {
			t.Errorf("%s: %v, want a reason that says %q", c.what, e, c.reason)
		}
	}
}

func TestAPathThatHangsAloneFailsAlone(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_CLIENT_TIMEOUT", "1s")
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	p.silentAt("/gemini")
	if e := checkKind(t, s, path, source.Failed); !strings.Contains(e.Reason, "no answer from Vault within 1s") {
		t.Errorf("%q", e.Reason)
	}
	p.answer(nil)
	expect(t, s, path, "one")
}

// In an outage a probe costs one request, and only now and then a second one.
func TestAnOutageIsNotAskedAboutEachTime(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	p.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) })
	p.forget()
	began := time.Now()
	for range 5 {
		checkKind(t, s, path, source.Unavailable)
	}
	if n, most := p.count("lookup-self"), 1+int(time.Since(began)/silence); n < 1 || n > most {
		t.Errorf("five reads in an outage asked %d times whether Vault answers, want once", n)
	}
}

// An engine that fails at many paths at once costs one question whether Vault answers.
func TestManyPathsThatFailTogetherAskOnceWhetherVaultAnswers(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	const readers = 8
	together := make(chan struct{})
	var failed, asked atomic.Int64
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "lookup-self") {
			asked.Add(1)
			p.forwardAfter(700*time.Millisecond, w, r)
			return
		}
		if failed.Add(1) == readers {
			close(together)
		}
		<-together
		w.WriteHeader(http.StatusInternalServerError)
		w.Write([]byte(`{"errors":["canary"]}`))
	})
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() { checkKind(t, s, path, source.Failed) })
	}
	reading.Wait()
	if n := asked.Load(); n > 2 { // a second time for who comes late on a busy machine
		t.Errorf("Vault was asked %d times whether it answers, want once", n)
	}
}

// Sessions that follow one another leave no connection behind.
func TestAHundredLoginsLeaveNoConnectionOpen(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	for range 100 {
		expect(t, s, path, "one")
		revoke(t, v, s)
	}
	expect(t, s, path, "one")
	eventually(t, "one connection is open", func() bool { return p.open.Load() <= 1 })
	s.Close(t.Context())
	eventually(t, "no connection is open", func() bool { return p.open.Load() == 0 })
}
