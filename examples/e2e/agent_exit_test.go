package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

func TestSIGTERMWipesOrKeepsTheFiles(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	environ := append(reach(v), "AGENT_TOKEN_FILE="+tokenFile(t, v, allow(t, v, unique(), secret)), entries("key="+secret))
	for onExit, left := range map[string][]string{"": nil, "wipe": nil, "keep": {"key"}} {
		a := startAgent(t, filepath.Join(memory(t), "keys"), append(environ, "AGENT_ON_EXIT="+onExit)).started(t).ready(t)
		if code := a.stop(t); code != 0 {
			t.Errorf("AGENT_ON_EXIT=%q: exit code %d", onExit, code)
		}
		if got := names(t, a.dir); !slices.Equal(got, left) {
			t.Errorf("AGENT_ON_EXIT=%q leaves %q, want %q", onExit, got, left)
		}
		if onExit == "keep" {
			assertRendered(t, a.path("key"), value)
		}
		if _, err := os.Stat(a.dir); err != nil {
			t.Errorf("the directory is gone: %v", err)
		}
	}
}

func TestAnAgentThatEndsGivesItsTokenBack(t *testing.T) {
	v := plainVault(t)
	secret, _ := newSecret(t, v)
	environ := append(byAppRole(t, v, allow(t, v, unique(), secret)), append(reach(v), entries("key="+secret))...)
	mount, _ := strings.CutPrefix(environ[1], "AGENT_AUTH_MOUNT=")
	a := startAgent(t, filepath.Join(memory(t), "keys"), environ).started(t).ready(t)
	if n := tokensOf(t, v, mount); n != 1 {
		t.Errorf("the running agent has %d tokens", n)
	}
	if code := a.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if n := tokensOf(t, v, mount); n != 0 {
		t.Errorf("%d tokens outlive the agent", n)
	}
}

// tokensOf returns how many tokens there are that were made by a login at that mount.
func tokensOf(t *testing.T, v *vaulttest.Server, mount string) (n int) {
	t.Helper()
	all := must[*api.Secret](t)(v.Client().Logical().List("auth/token/accessors"))
	for _, accessor := range all.Data["keys"].([]any) {
		token, err := v.Client().Auth().Token().LookupAccessor(accessor.(string))
		if err == nil && token.Data["path"] == "auth/"+mount+"/login" {
			n++
		}
	}
	return n
}

// Until Vault answers, the key that a killed agent left serves; equal bytes are not written again.
func TestAKilledAgentsFileIsTakenOver(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	token := tokenFile(t, v, allow(t, v, unique(), secret))
	first := newAgent(t, reach(v), token, "key="+secret).ready(t)
	before := must[os.FileInfo](t)(os.Stat(first.path("key")))
	first.kill()
	for _, name := range []string{".key.tmp-half", ".tmp-half"} {
		rewrite(t, filepath.Join(first.dir, name), canary)
	}

	environ := append(reach(v), "AGENT_TOKEN_FILE="+token, entries("key="+secret))
	blind := startAgent(t, first.dir, append(environ, "VAULT_ADDR=http://127.0.0.1:1")).started(t)
	if r := blind.readyz(t); r.status != 200 || !r.Files[0].Rendered {
		t.Errorf("with a good file and no Vault /readyz says %+v", r)
	}
	if got := names(t, first.dir); !slices.Equal(got, []string{"agent.sock", "key"}) {
		t.Errorf("in the directory are %q", got)
	}
	blind.failures(t, "unavailable", 1)
	assertRendered(t, blind.path("key"), value)
	blind.kill()

	third := startAgent(t, first.dir, environ).started(t)
	eventually(t, "the version is known", func() bool { return third.readyz(t).Files[0].Version == "1" })
	after := must[os.FileInfo](t)(os.Stat(first.path("key")))
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Error("equal bytes were written anew")
	}
}

func TestTheAgentEndsWhateverItWaitsFor(t *testing.T) {
	for name, addr := range map[string]string{"Vault refuses connections": "http://127.0.0.1:1", "Vault doesn't answer": silent(t)} {
		t.Run(name, func(t *testing.T) {
			environ := []string{"VAULT_ADDR=" + addr, "AGENT_TOKEN_FILE=" + file(t, canary), "AGENT_SECRETS=key=secret/x#k"}
			a := startAgent(t, filepath.Join(memory(t), "keys"), environ).started(t)
			if code := a.stop(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if left := names(t, a.dir); len(left) > 0 {
				t.Errorf("%q is left", left)
			}
		})
	}
}
