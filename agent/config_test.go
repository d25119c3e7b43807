package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/turn"
	"github.com/keyturn/keyturn/examples/leaktest"
)

var update = flag.Bool("update", false, "write testdata anew")

const canary = "AQ.canary-9f3a"

// environment makes these the only variables that the agent could look at.
func environment(t testing.TB, variables map[string]string) []string {
	t.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "AGENT_") || strings.HasPrefix(name, "VAULT_") || name == "GOOGLE_GEMINI_BASE_URL" {
			t.Setenv(name, "") // which brings it back after the test
			os.Unsetenv(name)
		}
	}
	t.Setenv("HOME", "/home/keyturn")
	for name, value := range variables {
		t.Setenv(name, value)
	}
	return os.Environ()
}

// loaded loads variables, and returns what the notes say.
func loaded(t testing.TB, variables map[string]string) (c Config, notes string, err error) {
	t.Helper()
	var logs bytes.Buffer
	c, note, err := load(environment(t, variables), &logs)
	if note != nil && c.Log != nil {
		note()
	}
	return c, logs.String(), err
}

// withoutParts is a Config without what can't be compared.
func withoutParts(c Config) Config {
	c.Store, c.Gemini, c.Log, c.Confine = nil, nil, nil, confinement{}
	return c
}

func TestTheDefaultsAreTheDesigns(t *testing.T) {
	want := Config{
		Secrets: []turn.Secret{{File: "gemini-api-key", Ref: secret.Ref{Path: "secret/gemini", Field: "api_key"}}},
		Dir:     "/run/keyturn/keys", Poll: 15 * time.Second, Listen: "127.0.0.1:9180", Validate: []string{"gemini-api-key"},
	}
	c, notes, err := loaded(t, nil)
	if err != nil || !reflect.DeepEqual(withoutParts(c), want) || notes != "" || c.Store == nil || c.Gemini == nil {
		t.Errorf("unset: %+v, notes %q, %v", c, notes, err)
	}
	empty := map[string]string{"GOOGLE_GEMINI_BASE_URL": "", "VAULT_ADDR": "", "VAULT_TOKEN": "", "VAULT_WRAP_TTL": "", "VAULT_SKIP_VERIFY": ""}
	for _, name := range names() {
		empty[name] = ""
	}
	c, notes, err = loaded(t, empty)
	if err != nil || !reflect.DeepEqual(withoutParts(c), want) || notes != "" {
		t.Errorf("set but empty: %+v, notes %q, %v", c, notes, err)
	}
}

func TestEveryVariableHasItsEffect(t *testing.T) {
	c, notes, err := loaded(t, map[string]string{
		"AGENT_SECRETS": " a=secret/a#x , b.pem=team/kv/b#y,", "AGENT_DIR": "/keys", "AGENT_AUTH": "kubernetes", "AGENT_AUTH_ROLE": "r",
		"AGENT_AUTH_MOUNT": "/k8s/", "AGENT_POLL_INTERVAL": "1m30s", "AGENT_LISTEN": ":9000", "AGENT_REQUIRE_TMPFS": "FALSE",
		"AGENT_VALIDATE": "b.pem, a", "AGENT_ON_EXIT": "keep", "AGENT_LOG_LEVEL": "DEBUG", "AGENT_LOG_FORMAT": "text",
		"AGENT_ALLOW_HTTP": "1", "GOOGLE_GEMINI_BASE_URL": "http://gemini.example", "VAULT_SKIP_VERIFY": "T",
	})
	want := Config{
		Secrets: []turn.Secret{{File: "a", Ref: secret.Ref{Path: "secret/a", Field: "x"}}, {File: "b.pem", Ref: secret.Ref{Path: "team/kv/b", Field: "y"}}},
		Dir:     "/keys", AllowDisk: true, SkipVerify: true, Poll: 90 * time.Second, Listen: ":9000",
		Validate: []string{"b.pem", "a"}, KeepOnExit: true,
	}
	if err != nil || !reflect.DeepEqual(withoutParts(c), want) {
		t.Errorf("%+v, %v", c, err)
	}
	if !c.Log.Enabled(t.Context(), -4) || !strings.HasPrefix(notes, "time=") || !strings.Contains(notes, "VAULT_SKIP_VERIFY: ") {
		t.Errorf("the log is neither at debug level nor text: %q", notes)
	}
}

// Each mistake alone: the message names the variable and the mend, and never the value.
func TestAMistakeIsNamedWithItsMend(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"AGENT_SECRETS", canary, "entry 1: there is no = in it: write FILE=MOUNT/PATH#FIELD"},
		{"AGENT_SECRETS", "a=secret/a#x,", ""},
		{"AGENT_SECRETS", ",", "names no secret"},
		{"AGENT_SECRETS", "a=secret/a#x,a=secret/b#x", "entry 2: the file's name is taken"},
		{"AGENT_SECRETS", "agent.sock=secret/a#x", "entry 1: the file's name is taken"},
		{"AGENT_SECRETS", canary + "=secret/a#x", "the file's name may have up to 200 of a-z"},
		{"AGENT_SECRETS", "../up=secret/a#x", "the file's name may have"},
		{"AGENT_SECRETS", ".hidden=secret/a#x", "the file's name may have"},
		{"AGENT_SECRETS", strings.Repeat("a", 201) + "=secret/a#x", "the file's name may have"},
		{"AGENT_SECRETS", "a=" + canary, "entry 1: the field is missing"},
		{"AGENT_SECRETS", "a=secret#" + canary, "entry 1: the path is missing"},
		{"AGENT_DIR", "keys/" + canary, "is not an absolute path: start it with /"},
		{"AGENT_TOKEN_FILE", "hvs." + canary, "is not an absolute path: start it with /"},
		{"AGENT_ROLE_ID_FILE", canary, "is not an absolute path"},
		{"AGENT_SECRET_ID_FILE", canary, "is not an absolute path"},
		{"AGENT_JWT_FILE", "./" + canary, "is not an absolute path"},
		{"AGENT_JWT_FILE", "/token", ""},
		{"AGENT_DIR", "/" + strings.Repeat("d", 96), "is too long for the socket in it"},
		{"AGENT_DIR", "/" + strings.Repeat("d", 95), ""},
		{"AGENT_AUTH", canary, "is none of token, approle, kubernetes, jwt, cert"},
		{"AGENT_AUTH", "kubernetes", "AGENT_AUTH_ROLE is missing: kubernetes needs the name of a role"},
		{"AGENT_AUTH", "jwt", ""},
		{"AGENT_POLL_INTERVAL", canary, "is not a duration: write it like 15s or 1m30s"},
		{"AGENT_POLL_INTERVAL", "15", "is not a duration"},
		{"AGENT_POLL_INTERVAL", "99ms", "is not between 100ms and 24h"},
		{"AGENT_POLL_INTERVAL", "-1s", "is not between 100ms and 24h"},
		{"AGENT_POLL_INTERVAL", "24h0m1s", "is not between 100ms and 24h"},
		{"AGENT_LISTEN", canary, "is not HOST:PORT"},
		{"AGENT_LISTEN", "127.0.0.1", "is not HOST:PORT"},
		{"AGENT_LISTEN", "127.0.0.1:", "is not HOST:PORT"},
		{"AGENT_LISTEN", "127.0.0.1:65536", "is not HOST:PORT"},
		{"AGENT_LISTEN", "[::1]:9180", ""},
		{"AGENT_REQUIRE_TMPFS", canary, "is none of true, false, 1, 0"},
		{"AGENT_VALIDATE", canary, "names a file that AGENT_SECRETS doesn't: name one of its files, or off"},
		{"AGENT_VALIDATE", "gemini-api-key,", "names a file that AGENT_SECRETS doesn't"},
		{"AGENT_VALIDATE", "off", ""},
		{"AGENT_ALLOW_HTTP", canary, "is none of true, false, 1, 0"},
		{"AGENT_ON_EXIT", canary, "is none of wipe, keep"},
		{"AGENT_LOG_LEVEL", canary, "is none of debug, info, warn, error"},
		{"AGENT_LOG_FORMAT", canary, "is none of json, text"},
		{"GOOGLE_GEMINI_BASE_URL", canary, "is not a URL"},
		{"GOOGLE_GEMINI_BASE_URL", "https://user:" + canary + "@h", "holds a user or password"},
		{"GOOGLE_GEMINI_BASE_URL", "https://h/?key=" + canary, "has a query or fragment"},
		{"GOOGLE_GEMINI_BASE_URL", "http://gemini.example", "is plain http, so the key could be read on the way: use https, or set AGENT_ALLOW_HTTP=true"},
		{"GOOGLE_GEMINI_BASE_URL", "http://127.0.0.1:1", ""},
		{"VAULT_WRAP_TTL", canary, "would wrap every answer of Vault: unset it"},
		{"VAULT_SKIP_VERIFY", canary, "could not parse"},
		{"VAULT_ADDR", "127.0.0.1/" + canary, "VAULT_ADDR is not a URL"},
	} {
		_, _, err := loaded(t, map[string]string{c.name: c.value})
		switch {
		case c.want == "" && err != nil:
			t.Errorf("%s=%.40s: %v, want none", c.name, c.value, err)
		case c.want == "":
		case err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), c.name):
			t.Errorf("%s=%.40s: %v, want its name and %q", c.name, c.value, err, c.want)
		case strings.Contains(err.Error(), canary):
			t.Errorf("%s: the value is quoted: %v", c.name, err)
		}
	}
}

func TestAllProblemsComeInOneMessage(t *testing.T) {
	wrong := map[string]string{"AGENT_SECRET": "x", "VAULT_ADDR": "not a URL", "VAULT_WRAP_TTL": "1m"}
	free := []string{"AGENT_AUTH_MOUNT", "AGENT_AUTH_ROLE"}
	for _, name := range append(names(), "GOOGLE_GEMINI_BASE_URL") {
		if !slices.Contains(free, name) {
			wrong[name] = canary
		}
	}
	wrong["AGENT_VALIDATE"] = "another-" + canary
	_, _, err := loaded(t, wrong)
	if err == nil {
		t.Fatal("no problem was found")
	}
	lines := strings.Split(err.Error(), "\n")
	if lines[0] != "the configuration has problems:" {
		t.Errorf("it begins with %q", lines[0])
	}
	for name := range wrong {
		if !slices.ContainsFunc(lines, func(line string) bool { return strings.HasPrefix(line, name+" ") }) {
			t.Errorf("no line is about %s in\n%v", name, err)
		}
	}
	if strings.Contains(err.Error(), canary) {
		t.Errorf("a value is quoted in\n%v", err)
	}
}

func TestAMistypedVariableIsNamedRightAndAnInjectedOneIsIgnored(t *testing.T) {
	for name, want := range map[string]string{
		"AGENT_SECRET": "AGENT_SECRETS", "AGENT_SECRTES": "AGENT_SECRETS", "AGENT_POLL_INTERVALL": "AGENT_POLL_INTERVAL",
		"AGENT_DIRS": "AGENT_DIR", "AGENT_LISTENER": "AGENT_LISTEN", "AGENT_ONEXIT": "AGENT_ON_EXIT", "AGENT_LOG_LVL": "AGENT_LOG_LEVEL",
		"AGENT_ROLEID_FILE": "AGENT_ROLE_ID_FILE",
	} {
		_, _, err := loaded(t, map[string]string{name: canary})
		if err == nil || !strings.Contains(err.Error(), name+" is unknown: did you mean "+want+"?") || strings.Contains(err.Error(), canary) {
			t.Errorf("%s: %v", name, err)
		}
	}
	injected := map[string]string{}
	for _, name := range []string{"AGENT_NAME", "AGENT_ENV", "AGENT_SERVICE_HOST", "AGENT_PORT_80_TCP", "AGENT_PORT"} {
		injected[name] = canary
	}
	_, notes, err := loaded(t, injected)
	if err != nil || strings.Contains(notes, canary) {
		t.Errorf("injected variables: %v, %q", err, notes)
	}
	for name := range injected {
		if strings.Count(notes, name+": is not a variable of the agent and is ignored") != 1 {
			t.Errorf("%s has not one line in\n%s", name, notes)
		}
	}
	// Other people's variables are none of ours, and neither is ours without its prefix.
	_, notes, err = loaded(t, map[string]string{"APP_ENV": "x", "SECRETS": canary, "DIR": "relative", "AUTH": "none", "VALIDATE": "x", "LISTEN": "x"})
	if err != nil || notes != "" {
		t.Errorf("%v, %q", err, notes)
	}
}

func TestWhatIsOddAndWorksIsNoted(t *testing.T) {
	c, notes, err := loaded(t, map[string]string{"AGENT_SECRETS": "db=secret/db#password"})
	if err != nil || c.Validate != nil || !strings.Contains(notes, "AGENT_VALIDATE: no file is called gemini-api-key") {
		t.Errorf("a gate that nothing passes through: %v, %q, %v", c.Validate, notes, err)
	}
	_, notes, err = loaded(t, map[string]string{"AGENT_SECRETS": "db=secret/db#password", "AGENT_VALIDATE": "off"})
	if err != nil || notes != "" {
		t.Errorf("a gate that was switched off: %q, %v", notes, err)
	}
	_, notes, err = loaded(t, map[string]string{"VAULT_TOKEN": canary})
	if err != nil || !strings.Contains(notes, "AGENT_TOKEN_FILE") || strings.Contains(notes, canary) {
		t.Errorf("a token in the environment: %q, %v", notes, err)
	}
	_, notes, err = loaded(t, map[string]string{"VAULT_TOKEN": canary, "AGENT_TOKEN_FILE": "/token"})
	if err != nil || notes != "" {
		t.Errorf("a token that isn't used: %q, %v", notes, err)
	}
}

// A table that leaves a variable out can't be relied on, and people rely on its words.
func TestTheHelpListsEveryVariable(t *testing.T) {
	var got bytes.Buffer
	if err := usage(&got); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "help.txt")
	if *update {
		if err := os.WriteFile(golden, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil || got.String() != string(want) {
		t.Errorf("%v; go test ./agent -run Help -update writes it anew:\n%s", err, got.String())
	}
	for _, name := range names() {
		if !strings.Contains(got.String(), "\n  "+name+" ") {
			t.Errorf("%s is missing", name)
		}
	}
	var tags strings.Builder
	if err := envconfig.Usagef(prefix, &variables{}, &tags, "{{range .}}{{if not (usage_description .)}}{{usage_key .}} {{end}}{{end}}"); err != nil || tags.String() != "" {
		t.Errorf("nothing is said of %s, %v", tags.String(), err)
	}
}

// FuzzConfig: whatever a variable holds, nothing panics and none of it is quoted; what is accepted names only files that the
// sink can make.
func FuzzConfig(f *testing.F) {
	all := append(names(), "GOOGLE_GEMINI_BASE_URL", "VAULT_SKIP_VERIFY", "VAULT_WRAP_TTL", "VAULT_TOKEN", "VAULT_ADDR")
	for i := range all {
		f.Add(uint8(i), "", "")
	}
	f.Add(uint8(0), "a=", "#x")
	f.Add(uint8(0), "a=b/c#", ",d=e/f#g")
	f.Add(uint8(1), "/", "/../..")
	f.Add(uint8(17), "https://user:", "@host?#")
	f.Fuzz(func(t *testing.T, which uint8, before, after string) {
		name, value := all[int(which)%len(all)], before+canary+after
		if strings.ContainsRune(value, 0) {
			t.Skip("no environment holds that")
		}
		c, notes, err := loaded(t, map[string]string{name: value})
		if form, found := leaktest.Find(fmt.Sprint(err, notes), canary); found {
			t.Errorf("%s is quoted (%s): %v %s", name, form, err, notes)
		}
		if err != nil {
			return
		}
		for _, s := range c.Secrets {
			if filepath.Base(s.File) != s.File || strings.HasPrefix(s.File, ".") || s.Ref.Path == "" || s.Ref.Field == "" {
				t.Errorf("%q was accepted as %+v", value, s)
			}
		}
	})
}
