package vault

import (
	"net/http"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/source/sourcetest"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

func TestConformanceOfKVVersion1(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness { return newHarness(t, "1") })
}

func TestConformanceOfKVVersion2(t *testing.T) {
	sourcetest.Run(t, func(t *testing.T) sourcetest.Harness { return newHarness(t, "2") })
}

// harness is a mount, a policy and a token in a real Vault, behind a proxy that can hang and go away.
type harness struct {
	t       *testing.T
	vault   *vaulttest.Server
	proxy   *proxy
	source  *Source
	version string
	policy  string
	mount   string
	api     string // the path by which Vault's API reads the secret
	last    map[string]any
	number  int
}

func newHarness(t *testing.T, version string) *harness {
	v := realVault(t)
	h := &harness{t: t, vault: v, proxy: startProxy(t, v.Addr), version: version, mount: mountKV(t, v, version), policy: unique()}
	h.api = h.mount + "/gemini"
	if version == "2" {
		h.api = h.mount + "/data/gemini"
	}
	h.Allow()
	t.Setenv("VAULT_ADDR", h.proxy.url())
	h.source = open(t, Config{Auth: Token, TokenFile: file(t, newToken(t, v, api.TokenCreateRequest{Policies: []string{h.policy}}))})
	return h
}

func (h *harness) Source() source.Source { return h.source }
func (h *harness) Path() string          { return h.mount + "/gemini" }
func (h *harness) Versioned() bool       { return h.version == "2" }
func (h *harness) Deny()                 { policy(h.t, h.vault, h.policy) }
func (h *harness) Allow()                { policy(h.t, h.vault, h.policy, h.api) }
func (h *harness) Stop()                 { h.proxy.stop() }
func (h *harness) Start()                { h.proxy.start() }
func (h *harness) Hang() <-chan struct{} { return h.proxy.makeHang() }
func (h *harness) Resume()               { h.proxy.resume() }
func (h *harness) Mend()                 { h.proxy.answer(nil) }

func (h *harness) Break() {
	h.proxy.answer(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/"+h.api {
			h.proxy.forward.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusInternalServerError)
		w.Write([]byte(`{"errors":["1 error occurred:\n\t* canary\n\n"]}`))
	})
}

func (h *harness) Put(fields map[string]any) {
	h.last = fields
	h.number++
	if h.version == "2" {
		fields = map[string]any{"data": fields}
	}
	write(h.t, h.vault, h.api, fields)
}

func (h *harness) Delete() {
	if _, err := h.vault.Client().Logical().Delete(h.api); err != nil {
		h.t.Fatal(err)
	}
}

func (h *harness) Restore() {
	if h.version == "1" {
		h.Put(h.last)
		return
	}
	write(h.t, h.vault, h.mount+"/undelete/gemini", map[string]any{"versions": []int{h.number}})
}

// Whatever stands before Vault, what isn't Vault's answer says nothing about the secret.
func TestAnAnswerThatIsNotVaultsMeansUnavailable(t *testing.T) {
	page := func(status int, contentType, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.WriteHeader(status)
			w.Write([]byte(body))
		}
	}
	for name, answer := range map[string]http.HandlerFunc{
		"a login page":             page(200, "text/html", "<html>canary-9f3a</html>"),
		"a page with 403":          page(403, "text/html", "<html>canary-9f3a</html>"),
		"a page with 404":          page(404, "text/html", "canary-9f3a"),
		"another API's JSON":       page(200, "application/json", `{"message":"canary-9f3a"}`),
		"another API's 404":        page(404, "application/json", `{"message":"canary-9f3a"}`),
		"JSON that is no object":   page(200, "application/json", `["canary-9f3a"]`),
		"half an answer":           page(200, "application/json", `{"data":{"data":{"k":"canary-9f3a`),
		"nothing":                  page(200, "application/json", ""),
		"a gateway's error":        page(502, "text/html", "canary-9f3a"),
		"an endless answer":        endless,
		"an endless error":         func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(400); endless(w, r) },
		"a connection that breaks": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
		"a redirect to nowhere":    page(302, "text/html", "canary-9f3a"),
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, "2")
			h.Put(map[string]any{"k": "one"})
			expect(t, h.source, h.Path(), "one")
			h.proxy.answer(answer)
			checkKind(t, h.source, h.Path(), source.Unavailable)
			h.proxy.answer(nil)
			expect(t, h.source, h.Path(), "one")
		})
	}
}

func endless(w http.ResponseWriter, r *http.Request) {
	chunk := make([]byte, 64<<10)
	for r.Context().Err() == nil {
		if _, err := w.Write(chunk); err != nil {
			return
		}
	}
}
