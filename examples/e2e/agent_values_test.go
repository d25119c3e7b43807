package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

// broken is one way in which a secret is no good, and what the agent must say of it.
type broken struct {
	name string
	// spoil makes the secret so; nil leaves it as it is, which is missing.
	spoil func(t *testing.T, v *vaulttest.Server, secret string)
	waits string
}

func field(value any) func(*testing.T, *vaulttest.Server, string) {
	return func(t *testing.T, v *vaulttest.Server, secret string) { put(t, v, secret, map[string]any{"k": value}) }
}

var brokenSecrets = []broken{
	{"deleted", func(t *testing.T, v *vaulttest.Server, secret string) {
		if _, err := v.Client().Logical().Delete("secret/data/" + secret); err != nil {
			t.Fatal(err)
		}
	}, "was deleted: undelete it, or write a new one"},
	{"gone", func(t *testing.T, v *vaulttest.Server, secret string) {
		if _, err := v.Client().Logical().Delete("secret/metadata/" + secret); err != nil {
			t.Fatal(err)
		}
	}, "there is no secret: write it, or name another in AGENT_SECRETS"},
	{"fieldless", func(t *testing.T, v *vaulttest.Server, secret string) {
		put(t, v, secret, map[string]any{"other": newValue()})
	}, `there is no field "k": write one`},
	{"empty", field(""), "the value is empty: write one to the store"},
	{"number", field(7), `the field "k" is not a string: write it as one`},
	{"object", field(map[string]any{"k": newValue()}), `the field "k" is not a string: write it as one`},
	{"long", field(canary + strings.Repeat("v", 4<<10)), "the value is longer than 4 KiB"},
	{"huge", field(canary + strings.Repeat("v", 64<<10)), "is longer than 64 KiB"},
	{"newline", field(canary + "\n"), "the value ends with a newline"},
	{"control", field(canary + "\x00" + canary), "the value has a control character"},
	{"denied", func(t *testing.T, v *vaulttest.Server, secret string) { allow(t, v, secret) }, `permission denied: give the agent's policy "read" on "secret/data/`},
}

// brokenAgent starts an agent for a secret of each kind, a policy each, and one named steady that stays good.
func brokenAgent(t *testing.T, v *vaulttest.Server, prepare func(b broken, secret string)) (a *agent, secrets map[string]string, steady string) {
	t.Helper()
	secrets = map[string]string{}
	steady, _ = newSecret(t, v)
	list, policies := []string{"steady=" + steady}, []string{allow(t, v, steady, steady)}
	for _, b := range brokenSecrets {
		secret := unique()
		secrets[b.name] = secret
		policies = append(policies, allow(t, v, secret, secret))
		list = append(list, b.name+"="+secret)
		prepare(b, secret)
	}
	mount := enable(t, v, "approle")
	write(t, v, "auth/"+mount+"/role/agent", map[string]any{"token_policies": policies, "bind_secret_id": false, "token_bound_cidrs": "127.0.0.0/8"})
	write(t, v, "auth/"+mount+"/role/agent/role-id", map[string]any{"role_id": mount})
	id := write(t, v, "auth/"+mount+"/login", map[string]any{"role_id": mount}).Auth.ClientToken
	return newAgent(t, reach(v), file(t, id), list...), secrets, steady
}

// Whatever becomes of a secret, the last good value stays in its file, the agent stays ready, and says what is wrong: in
// /readyz, a metric, and one line of the log, however often it reads. When the secret is good again the file follows.
func TestABadValueLeavesTheLastGoodOne(t *testing.T) {
	v := plainVault(t)
	values := map[string]string{}
	a, secrets, _ := brokenAgent(t, v, func(b broken, secret string) {
		values[b.name] = newValue()
		put(t, v, secret, map[string]any{"k": values[b.name]})
	})
	a.ready(t)
	for _, b := range brokenSecrets {
		b.spoil(t, v, secrets[b.name])
	}
	for _, b := range brokenSecrets {
		eventually(t, "/readyz says of "+b.name+": "+b.waits, func() bool { return strings.Contains(a.waits(t, b.name), b.waits) })
	}
	a.reads(t, "steady", 4)
	if r := a.readyz(t); r.status != 200 {
		t.Errorf("/readyz is %d, though every file has been rendered", r.status)
	}
	for _, b := range brokenSecrets {
		assertRendered(t, a.path(b.name), values[b.name])
		if inStep, found := a.metric(t, "keyturn_agent_file_in_step", fmt.Sprintf("file=%q", b.name)); inStep != 0 || !found {
			t.Errorf("%s: file_in_step is %v", b.name, inStep)
		}
		told := func(l logged) bool { return l.File == b.name && strings.Contains(l.Reason, b.waits) }
		if n := a.count(told); n != 1 {
			t.Errorf("%s: %d lines say why, want 1", b.name, n)
		}
	}
	if inStep, _ := a.metric(t, "keyturn_agent_file_in_step", `file="steady"`); inStep != 1 {
		t.Error("the file beside them is out of step")
	}
	for reason, least := range map[string]float64{"not_found": 2, "denied": 1} {
		if n, _ := a.metric(t, "keyturn_agent_store_read_failures_total", fmt.Sprintf("reason=%q", reason)); n < least {
			t.Errorf("%v failed reads are counted as %s", n, reason)
		}
	}

	for _, b := range brokenSecrets {
		allow(t, v, secrets[b.name], secrets[b.name])
		values[b.name] = newValue()
		put(t, v, secrets[b.name], map[string]any{"k": values[b.name]})
	}
	for _, b := range brokenSecrets {
		eventually(t, b.name+" is good again", func() bool { return holds(a.path(b.name), values[b.name]) })
		eventually(t, b.name+" waits for nothing", func() bool { return a.waits(t, b.name) == "" })
	}
}

func TestAFileThatNeverHadAGoodValueSaysWhatItWaitsFor(t *testing.T) {
	v := plainVault(t)
	a, secrets, _ := brokenAgent(t, v, func(b broken, secret string) {
		if b.name != "gone" { // never written
			put(t, v, secret, map[string]any{"k": newValue()})
			b.spoil(t, v, secret)
		}
	})
	for _, b := range brokenSecrets {
		eventually(t, "/readyz says of "+b.name+": "+b.waits, func() bool { return strings.Contains(a.waits(t, b.name), b.waits) })
		if _, err := os.Lstat(a.path(b.name)); err == nil {
			t.Errorf("%s was rendered", b.name)
		}
	}
	if r := a.readyz(t); r.status != 503 || r.Ready {
		t.Errorf("/readyz is %d", r.status)
	}
	health := start(t, ours.build(t, "agent"), []string{"HOME=/", "AGENT_LISTEN=" + strings.TrimPrefix(a.url, "http://")}, withArgs("health"))
	if code := health.exit(t); code != 1 || !strings.Contains(health.stderr.String(), "empty: the value is empty") {
		t.Errorf("health: exit code %d, %s", code, health.stderr)
	}
	for name, secret := range secrets {
		allow(t, v, secret, secret)
		put(t, v, secret, map[string]any{"k": canary + name})
	}
	a.ready(t)
	for _, b := range brokenSecrets {
		assertRendered(t, filepath.Join(a.dir, b.name), canary+b.name)
	}
}
