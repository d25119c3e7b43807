package e2e

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/examples/porttest"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

func TestAWrongConfigurationIsToldInOneMessageAndNothingStarts(t *testing.T) {
	dir := filepath.Join(memory(t), "keys")
	a := startAgent(t, dir, []string{
		"AGENT_SECRETS=key=secret/gemini,Other=secret/x#y,key=secret/x#" + canary + " ",
		"AGENT_AUTH=" + canary + "ldap", "AGENT_POLL_INTERVAL=" + canary + "1", "AGENT_LISTEN=" + canary + "nowhere",
		"AGENT_ON_EXIT=" + canary, "AGENT_LOG_LEVEL=" + canary, "AGENT_LOG_FORMAT=" + canary, "AGENT_REQUIRE_TMPFS=" + canary,
		"AGENT_TOKN_FILE=/x", "VAULT_ADDR=" + canary, "VAULT_WRAP_TTL=5m", "GOOGLE_GEMINI_BASE_URL=ftp://" + canary,
	})
	if code := a.exit(t); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	out := a.stderr.String()
	for _, name := range []string{
		"AGENT_SECRETS entry 1", "AGENT_SECRETS entry 2", "AGENT_SECRETS entry 3", "AGENT_AUTH is", "AGENT_POLL_INTERVAL", "AGENT_LISTEN",
		"AGENT_ON_EXIT", "AGENT_LOG_LEVEL", "AGENT_LOG_FORMAT", "AGENT_REQUIRE_TMPFS", "did you mean AGENT_TOKEN_FILE",
		"VAULT_ADDR", "VAULT_WRAP_TTL", "GOOGLE_GEMINI_BASE_URL",
	} {
		if n := strings.Count(out, name); n != 1 {
			t.Errorf("%q is in the message %d times:\n%s", name, n, out)
		}
	}
	if n := strings.Count(out, "keyturn-agent: "); n != 1 || a.count(func(logged) bool { return true }) != 0 {
		t.Errorf("%d messages, want one and no log:\n%s", n, out)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the directory was made")
	}
}

func TestWrongUseExitsWith2(t *testing.T) {
	for _, args := range [][]string{{"strat"}, {canary}, {"run", "now"}, {"status", "-x"}, {"status", "-json", "x"}} {
		p := start(t, ours.build(t, "agent"), nil, withArgs(args...))
		if code := p.exit(t); code != 2 || !strings.Contains(p.stderr.String(), "keyturn-agent -h") {
			t.Errorf("%q: exit code %d, %q", args, code, p.stderr)
		}
	}
}

// From refused over sealed to good: one line for each change, whatever the number of attempts, and then the key.
func TestAVaultThatIsDownAtTheStartIsWaitedForAndNamedOnce(t *testing.T) {
	binary, err := vaulttest.Binary(t.Context(), os.Stderr)
	if err != nil {
		vaulttest.Missing(t, err)
	}
	listen := porttest.Loopback(t)
	secret, value, token := unique(), newValue(), "keyturn-e2e-"+unique()
	a := newAgent(t, []string{"VAULT_ADDR=http://" + listen}, file(t, token), "key="+secret)
	a.failures(t, "unavailable", 3)
	if r := a.readyz(t); r.status != 503 || !strings.Contains(r.Files[0].Waits, "no connection to Vault at "+listen) {
		t.Errorf("/readyz says %+v", r)
	}
	if status, _ := get(t, a.url+"/livez"); status != 200 {
		t.Errorf("/livez is %d", status)
	}

	v := vaulttest.ForTest(t, vaulttest.Options{Binary: binary, Listen: listen})
	if err := v.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.failures(t, "sealed", 3)
	if r := a.readyz(t); r.status != 503 || !strings.Contains(r.Files[0].Waits, "sealed") {
		t.Errorf("/readyz says %+v", r)
	}

	if err := v.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.failures(t, "unauthenticated", 2)
	if waits := a.waits(t, "key"); !strings.Contains(waits, "AGENT_TOKEN_FILE") {
		t.Errorf("with a token that Vault doesn't know the file waits for %q", waits)
	}
	put(t, v, secret, map[string]any{"k": value})
	request := &api.TokenCreateRequest{ID: token, Policies: []string{allow(t, v, unique(), secret)}}
	must[*api.Secret](t)(v.Client().Auth().Token().Create(request))
	a.ready(t)
	assertRendered(t, a.path("key"), value)

	seen := map[string]int{}
	for _, line := range a.log() {
		if strings.HasPrefix(line.Msg, "the store fails") {
			seen[line.Kind+" "+line.Reason]++
		}
	}
	for reason, n := range seen {
		if n > 1 {
			t.Errorf("%d lines say %q", n, reason)
		}
	}
	for _, kind := range []string{"unavailable", "sealed", "unauthenticated"} {
		if a.count(func(l logged) bool { return l.Kind == kind }) == 0 {
			t.Errorf("no line says %s", kind)
		}
	}
}

func TestASecondAgentOnOneDirectoryIsTurnedAway(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	token := tokenFile(t, v, allow(t, v, unique(), secret))
	first := newAgent(t, reach(v), token, "key="+secret).ready(t)
	second := startAgent(t, first.dir, append(reach(v), "AGENT_TOKEN_FILE="+token, entries("key="+secret)))
	if code := second.exit(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if out := second.stderr.String(); !strings.Contains(out, first.dir+": another agent renders to it: stop that one") {
		t.Errorf("it says %q", out)
	}
	assertRendered(t, first.path("key"), value)
	value = newValue()
	put(t, v, secret, map[string]any{"k": value})
	eventually(t, "the first goes on", func() bool { return holds(first.path("key"), value) })
	if got := names(t, first.dir); len(got) != 2 {
		t.Errorf("in the directory are %q", got)
	}
}

func TestAPortThatIsTakenIsNamed(t *testing.T) {
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	dir := filepath.Join(memory(t), "keys")
	a := startAgent(t, dir, []string{"AGENT_LISTEN=" + l.Addr().String(), "AGENT_TOKEN_FILE=/nonexistent"})
	if code := a.exit(t); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if out := a.stderr.String(); !strings.Contains(out, "AGENT_LISTEN") {
		t.Errorf("it says %q", out)
	}
}
