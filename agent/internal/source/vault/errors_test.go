package vault

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// checkKind reads path and wants an error of that kind that gives nothing away. It returns it.
func checkKind(t testing.TB, s *Source, path string, want source.Kind) *source.Error {
	t.Helper()
	_, err := s.Fetch(context.Background(), path)
	e, ok := errors.AsType[*source.Error](err)
	if !ok {
		t.Fatalf("%v (%T), want a *source.Error of kind %s", err, err, want)
	}
	if e.Kind != want {
		t.Fatalf("%v is of kind %s, want %s", err, e.Kind, want)
	}
	for _, leak := range []string{"canary", "hvs.", "hvb.", "<html"} {
		if strings.Contains(err.Error(), leak) {
			t.Errorf("the error repeats what came over the network: %v", err)
		}
	}
	return e
}

func TestVaultsRefusalsByStatus(t *testing.T) {
	for _, c := range []struct {
		status int
		body   string
		header string
		kind   source.Kind
		reason string
		wait   time.Duration
	}{
		{503, `{"errors":["Vault is sealed"]}`, "", source.Sealed, "unseal", 0},
		{503, `{"errors":["canary"]}`, "7", source.Unavailable, "503", 7 * time.Second},
		{500, `{"errors":["local node not active but active cluster node not found canary"]}`, "", source.Unavailable, "500", 0},
		{429, `{"errors":["request path \"canary\": rate limit quota exceeded"]}`, "3", source.RateLimited, "quota", 3 * time.Second},
		{429, `canary`, "99999999", source.RateLimited, "quota", 5 * time.Minute},
		{429, `{"errors":["canary"]}`, "soon", source.RateLimited, "quota", 0},
		{429, `{"errors":["canary"]}`, "-4", source.RateLimited, "quota", 0},
		{412, `{"errors":["canary"]}`, "", source.Unavailable, "412", 0},
		{472, `{"errors":["canary"]}`, "", source.Unavailable, "472", 0},
		{473, `{"errors":["canary"]}`, "", source.Unavailable, "473", 0},
		{405, `{"errors":["unsupported operation canary"]}`, "", source.Invalid, "405", 0},
		{400, `{"errors":["canary"]}`, "", source.Invalid, "400", 0},
		{404, `{"errors":[]}`, "", source.NotFound, "no secret", 0},
		{404, `{"request_id":"x","data":null,"warnings":["canary"]}`, "", source.NotFound, "no secret", 0},
	} {
		t.Run(http.StatusText(c.status)+" "+c.body, func(t *testing.T) {
			h := newHarness(t, "2")
			h.Put(map[string]any{"k": "one"})
			expect(t, h.source, h.Path(), "one")
			h.proxy.answer(func(w http.ResponseWriter, _ *http.Request) {
				if c.header != "" {
					w.Header().Set("Retry-After", c.header)
				}
				w.WriteHeader(c.status)
				w.Write([]byte(c.body))
			})
			e := checkKind(t, h.source, h.Path(), c.kind)
			if !strings.Contains(e.Reason, c.reason) || e.RetryAfter != c.wait {
				t.Errorf("%q, again after %v; want one that says %q, after %v", e.Reason, e.RetryAfter, c.reason, c.wait)
			}
		})
	}
}

func TestARetryAfterMayBeADate(t *testing.T) {
	at := time.Now().Add(40 * time.Second).UTC().Format(http.TimeFormat)
	if got := retryAfter(http.Header{"Retry-After": {at}}); got < 30*time.Second || got > 41*time.Second {
		t.Errorf("%v until a date 40 s ahead", got)
	}
}

func TestASealedVaultSaysSoAndIsReadAgainAfterwards(t *testing.T) {
	h := newHarness(t, "2")
	h.Put(map[string]any{"k": "one"})
	expect(t, h.source, h.Path(), "one")
	if err := h.vault.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkKind(t, h.source, h.Path(), source.Sealed)
	if err := h.vault.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	expect(t, h.source, h.Path(), "one")
}

func TestNewRefusesVariablesThatCanNeverWorkAndQuotesNone(t *testing.T) {
	for _, c := range [][2]string{
		{"VAULT_ADDR", "canary:8200"},
		{"VAULT_AGENT_ADDR", "https://%zz-canary"},
		{"VAULT_PROXY_ADDR", "http://user:canary@%zz"},
		{"VAULT_PROXY_ADDR", "canary:3128"},
		{"VAULT_PROXY_ADDR", "canary.example"},
		{"VAULT_PROXY_ADDR", "ftp://canary"},
		{"VAULT_PROXY_ADDR", "http:canary:3128"},
		{"VAULT_CLIENT_TIMEOUT", "canary"},
		{"VAULT_CLIENT_TIMEOUT", "-1s"},
		{"VAULT_CLIENT_TIMEOUT", "1ns"},
		{"VAULT_SKIP_VERIFY", "canary"},
		{"VAULT_MAX_RETRIES", "canary"},
		{"VAULT_RATE_LIMIT", "canary"},
		{"VAULT_HEADERS", "canary"},
		{"VAULT_CACERT_BYTES", "canary"},
		{"VAULT_CLIENT_KEY", "canary"},
		{"VAULT_CACERT", "/nonexistent/ca.pem"},
	} {
		name, value := c[0], c[1]
		t.Run(name+"="+value, func(t *testing.T) {
			clearEnvironment(t)
			t.Setenv(name, value)
			_, err := New(Config{Auth: Token, Token: "x"}, nil)
			if err == nil || !strings.Contains(err.Error(), name) || strings.Contains(err.Error(), "canary") {
				t.Errorf("%v, want an error that names %s and not its value", err, name)
			}
		})
	}
	clearEnvironment(t)
	t.Setenv("VAULT_CLIENT_CERT", file(t, "x"))
	for _, key := range []string{"-----BEGIN PRIVATE KEY-----\ncanary/canary\n-----END PRIVATE KEY-----\n", "canary/canary"} {
		t.Setenv("VAULT_CLIENT_KEY", key)
		if err := CheckEnvironment(); err == nil || !strings.Contains(err.Error(), "VAULT_CLIENT_KEY") || strings.Contains(err.Error(), "canary") {
			t.Errorf("a key in place of its path: %v", err)
		}
	}
	clearEnvironment(t)
	for _, token := range []string{"canary\ncanary", "canary\x00"} {
		if _, err := New(Config{Auth: Token, Token: token}, nil); err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("a token of two lines: %v", err)
		}
	}
	if _, err := New(Config{Auth: "ldap"}, nil); err == nil || !strings.Contains(err.Error(), "AGENT_AUTH") {
		t.Errorf("an unknown method: %v", err)
	}
}

func TestAnErrorSaysWhereTheUserWentWrong(t *testing.T) {
	h := newHarness(t, "2")
	h.Put(map[string]any{"k": "one"})
	policy(t, h.vault, h.policy, h.mount+"/data/*")
	for path, want := range map[string]string{
		h.mount + "/data/gemini": "perhaps " + h.mount + "/gemini",
		h.mount + "/nothing":     "vault kv put " + h.mount + "/nothing FIELD=-",
	} {
		if e := checkKind(t, h.source, path, source.NotFound); !strings.Contains(e.Reason, want) {
			t.Errorf("%s: %q, want one that says %q", path, e.Reason, want)
		}
	}
	if e := checkKind(t, h.source, unique()+"/gemini", source.Denied); !strings.Contains(e.Reason, "mount exists") {
		t.Errorf("no such mount: %q", e.Reason)
	}
	h.Delete()
	if e := checkKind(t, h.source, h.Path(), source.NotFound); !strings.Contains(e.Reason, "version 1 was deleted") {
		t.Errorf("deleted: %q", e.Reason)
	}
	write(t, h.vault, h.mount+"/destroy/gemini", map[string]any{"versions": []int{1}})
	if e := checkKind(t, h.source, h.Path(), source.NotFound); !strings.Contains(e.Reason, "version 1 was destroyed") {
		t.Errorf("destroyed: %q", e.Reason)
	}
	h.Deny()
	if e := checkKind(t, h.source, h.Path(), source.Denied); !strings.Contains(e.Reason, `"read" on "`+h.mount+`/data/gemini"`) {
		t.Errorf("denied: %q", e.Reason)
	}
}
