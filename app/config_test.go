package main

import (
	"bytes"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/kelseyhightower/envconfig"

	"github.com/keyturn/keyturn/app/gemini"
)

const canary = "AQ.Ab8RN6-canary_key.must-not-leak"

// environment sets these variables and unsets all others that the app reads. It returns the whole.
func environment(t *testing.T, pairs ...string) []string {
	t.Helper()
	var b strings.Builder
	envconfig.Usagef("", &unprefixed{}, &b, "{{range .}}{{usage_key .}} {{end}}")
	for _, name := range append(names(), strings.Fields(b.String())...) {
		t.Setenv(name, "") // remembers what to put back
		os.Unsetenv(name)
	}
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		t.Setenv(name, value)
	}
	return os.Environ()
}

// loaded is load, with what it notes.
func loaded(environ []string) (c Config, notes string, err error) {
	var b bytes.Buffer
	c, note, err := load(environ, &b)
	note()
	return c, b.String(), err
}

func TestWithoutVariablesTheDefaultsHold(t *testing.T) {
	empty := []string{"APP_SDK=", "APP_MODEL=", "APP_ALLOW_HTTP=", "APP_LISTEN=", "APP_LOG_LEVEL=", "APP_LOG_FORMAT=",
		"GEMINI_API_KEY=", "GOOGLE_GEMINI_BASE_URL="}
	for name, pairs := range map[string][]string{"unset": nil, "set but empty": empty} {
		c, notes, err := loaded(environment(t, pairs...))
		if err != nil || notes != "" {
			t.Fatalf("%s: %v, %v", name, notes, err)
		}
		want := Config{
			KeyFile: "/run/keyturn/keys/gemini-api-key",
			Socket:  "/run/keyturn/keys/agent.sock",
			Gemini:  gemini.Config{SDK: gemini.SDKs()[0], Model: gemini.DefaultModel, BaseURL: gemini.DefaultBaseURL},
			Listen:  "127.0.0.1:8080",
		}
		if !c.Static.IsZero() {
			t.Errorf("%s: there is a static key", name)
		}
		if c.Static = want.Static; c.KeyFile != want.KeyFile || c.Socket != want.Socket || c.Gemini != want.Gemini ||
			c.Listen != want.Listen || c.Log.Enabled(t.Context(), slog.LevelDebug) {
			t.Errorf("%s: %+v, want %+v", name, c, want)
		}
	}
}

func TestEveryVariableIsRead(t *testing.T) {
	c, notes, err := loaded(environment(t, "APP_KEY_FILE=/keys/key", "APP_AGENT_SOCKET=/run/a.sock", "APP_SDK=genai", "APP_MODEL=gemini-9",
		"APP_ALLOW_HTTP=TRUE", "APP_LISTEN=:80", "APP_LOG_LEVEL=DEBUG", "APP_LOG_FORMAT=Text", "APP_NAME=x", "GOOGLE_GEMINI_BASE_URL=http://stand-in:9000"))
	if err != nil {
		t.Fatal(err)
	}
	want := gemini.Config{SDK: gemini.SDKGenAI, Model: "gemini-9", BaseURL: "http://stand-in:9000", AllowHTTP: true}
	if c.KeyFile != "/keys/key" || c.Socket != "/run/a.sock" || c.Gemini != want || c.Listen != ":80" || !c.Log.Enabled(t.Context(), slog.LevelDebug) || !strings.Contains(notes, "level=WARN") {
		t.Errorf("%+v %s", c, notes)
	}
}

func TestTheSocketLiesBesideTheKeyFileUnlessItIsNamedOrNotWanted(t *testing.T) {
	for _, test := range []struct {
		name, want string
		pairs      []string
	}{
		{"default", "/keys/agent.sock", []string{"APP_KEY_FILE=/keys/key"}},
		{"relative", "/keys/other.sock", []string{"APP_KEY_FILE=/keys/key", "APP_AGENT_SOCKET=other.sock"}},
		{"absolute", "/run/a.sock", []string{"APP_KEY_FILE=/keys/key", "APP_AGENT_SOCKET=/run/a.sock"}},
		{"empty", "", []string{"APP_KEY_FILE=/keys/key", "APP_AGENT_SOCKET="}},
		{"no key file", "", []string{"APP_KEY_FILE=", "GEMINI_API_KEY=a-key"}},
	} {
		c, _, err := loaded(environment(t, test.pairs...))
		if err != nil || c.Socket != test.want {
			t.Errorf("%s: %q, %v", test.name, c.Socket, err)
		}
	}
}

func TestAStaticKeyServesOnlyIfTheKeyFileIsSetToEmpty(t *testing.T) {
	for _, test := range []struct {
		name, note string
		pairs      []string
		used       bool
	}{
		{"no file named", "GEMINI_API_KEY: is ignored", []string{"GEMINI_API_KEY=" + canary}, false},
		{"a file named", "GEMINI_API_KEY: is ignored", []string{"GEMINI_API_KEY=" + canary, "APP_KEY_FILE=/keys/key"}, false},
		{"empty", "GEMINI_API_KEY: the environment", []string{"GEMINI_API_KEY=" + canary, "APP_KEY_FILE="}, true},
	} {
		c, notes, err := loaded(environment(t, test.pairs...))
		if err != nil || strings.Count(notes, "\n") != 1 || !strings.Contains(notes, test.note) {
			t.Errorf("%s: %q, %v", test.name, notes, err)
		}
		if used := c.Static.Reveal() == canary; used != test.used {
			t.Errorf("%s: used: %v", test.name, used)
		}
		if strings.Contains(notes, canary) {
			t.Errorf("%s: a note shows the key", test.name)
		}
	}
}

func TestEveryProblemIsSaidAtOnceAndQuotesNothing(t *testing.T) {
	const pasted = canary + " "
	_, _, err := loaded(environment(t, "APP_KEY_FILE=keys/"+pasted, "APP_SDK="+pasted, "APP_MODEL="+pasted, "APP_ALLOW_HTTP="+pasted,
		"APP_LISTEN="+pasted, "APP_LOG_LEVEL="+pasted, "APP_LOG_FORMAT="+pasted, "GOOGLE_GEMINI_BASE_URL="+pasted,
		"APP_KEYFILE="+pasted, "APP_LISTENER="+pasted))
	if err == nil {
		t.Fatal("no problem was found")
	}
	want := `the configuration has problems:
APP_KEYFILE is unknown: did you mean APP_KEY_FILE?
APP_LISTENER is unknown: did you mean APP_LISTEN?
APP_SDK is none of generative-ai-go, genai
APP_ALLOW_HTTP is none of true, false, 1, 0
APP_LISTEN is not HOST:PORT: write it like 127.0.0.1:8080, or :8080 for all addresses
APP_LOG_FORMAT is none of json, text
APP_KEY_FILE is not an absolute path: start it with /
APP_MODEL may only have letters, digits, '.', '_' and '-'; leave out a leading "models/"
GOOGLE_GEMINI_BASE_URL is not an absolute http or https URL; write it as https://host
APP_LOG_LEVEL is none of debug, info, warn, error`
	if got := sorted(err.Error()); got != sorted(want) {
		t.Errorf("%s\n\nwant\n%s", got, sorted(want))
	}

	_, _, err = loaded(environment(t, "APP_KEY_FILE=", "GEMINI_API_KEY="+pasted))
	if err == nil || !strings.Contains(err.Error(), "GEMINI_API_KEY is no key: ") || strings.Contains(err.Error(), "canary") {
		t.Errorf("%v", err)
	}
	if _, _, err = loaded(environment(t, "APP_KEY_FILE=")); err == nil || !strings.Contains(err.Error(), "APP_KEY_FILE is empty") {
		t.Errorf("%v", err)
	}
	_, _, err = loaded(environment(t, "GOOGLE_GEMINI_BASE_URL=http://gemini.example"))
	if err == nil || !strings.Contains(err.Error(), "GOOGLE_GEMINI_BASE_URL is plain http") {
		t.Errorf("%v", err)
	}
}

func TestAMistypedNameIsAProblemThatNamesTheRightOne(t *testing.T) {
	for mistyped, right := range map[string]string{
		"APP_KEYFILE": "APP_KEY_FILE", "APP_KEY_FIEL": "APP_KEY_FILE", "APP_MODELS": "APP_MODEL", "APP_SKD": "APP_SDK",
		"APP_AGENT_SOCK": "APP_AGENT_SOCKET", "APP_LOGLEVEL": "APP_LOG_LEVEL", "APP_ALLOW_HTTPS": "APP_ALLOW_HTTP",
	} {
		_, _, err := loaded(append(environment(t), mistyped+"=x"))
		if err == nil || !strings.Contains(err.Error(), mistyped+" is unknown: did you mean "+right+"?") {
			t.Errorf("%s: %v", mistyped, err)
		}
	}
}

func TestWhatAPlatformInjectsIsNeverFatal(t *testing.T) {
	injected := []string{"APP_ENV", "APP_NAME", "APP_VERSION", "APP_KEY", "APP_URL", "APP_DEBUG", "APP_SERVICE_HOST", "APP_SERVICE_PORT",
		"APP_SERVICE_PORT_HTTP", "APP_PORT", "APP_PORT_80_TCP", "APP_PORT_80_TCP_PROTO", "APP_PORT_80_TCP_PORT", "APP_PORT_80_TCP_ADDR"}
	environ := environment(t)
	for _, name := range injected {
		environ = append(environ, name+"="+canary)
	}
	_, notes, err := loaded(append(environ, "APP="+canary, "APPLICATION="+canary, "app_sdk="+canary))
	if err != nil {
		t.Error(err)
	}
	if strings.Count(notes, "\n") != len(injected) || strings.Contains(notes, canary) {
		t.Errorf("one note for each, without its value: %q", notes)
	}
}

var update = flag.Bool("update", false, "write testdata anew")

func TestHelpListsEveryVariable(t *testing.T) {
	var b bytes.Buffer
	if err := usage(&b); err != nil {
		t.Fatal(err)
	}
	golden := filepath.Join("testdata", "usage.golden")
	if *update {
		if err := os.WriteFile(golden, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("-h prints\n%s\nand not %s (go test ./app -update writes it anew)", b.String(), golden)
	}
}

func sorted(lines string) string {
	all := strings.Split(lines, "\n")
	slices.Sort(all)
	return strings.Join(all, "\n")
}
