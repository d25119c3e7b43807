package e2e

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
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
