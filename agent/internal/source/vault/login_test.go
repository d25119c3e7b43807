package vault

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

// secretFor makes a KV v2 mount with one secret, and a policy that reads it. VAULT_ADDR leads to Vault.
func secretFor(t testing.TB, v *vaulttest.Server) (path, policyName string) {
	t.Helper()
	mount := mountKV(t, v, "2")
	write(t, v, mount+"/data/gemini", map[string]any{"data": map[string]any{"k": "one"}})
	return mount + "/gemini", policy(t, v, unique(), mount+"/data/gemini")
}

func enable(t testing.TB, v *vaulttest.Server, method string) string {
	t.Helper()
	mount := unique()
	if err := v.Client().Sys().EnableAuthWithOptions(mount, &api.EnableAuthOptions{Type: method}); err != nil {
		t.Fatal(err)
	}
	return mount
}

// checkRefused wants the login refused for that reason.
func checkRefused(t testing.TB, s *Source, path, reason string) {
	t.Helper()
	if e := checkKind(t, s, path, source.Unauthenticated); !strings.Contains(e.Reason, reason) {
		t.Errorf("%q, want a reason that says %q", e.Reason, reason)
	}
}

func TestLoginByToken(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	path, policyName := secretFor(t, v)
	token := newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}})

	expect(t, open(t, Config{Auth: Token, TokenFile: file(t, token+"\n")}), path, "one")
	expect(t, open(t, Config{Auth: Token, Token: token}), path, "one")
	t.Setenv("HOME", t.TempDir())
	rewrite(t, filepath.Join(os.Getenv("HOME"), ".vault-token"), token)
	expect(t, open(t, Config{Auth: Token}), path, "one")

	checkRefused(t, open(t, Config{Auth: Token, TokenFile: file(t, "hvs.canary")}), path, "AGENT_TOKEN_FILE")
	checkRefused(t, open(t, Config{Auth: Token, TokenFile: "/nonexistent/token"}), path, "missing")
	checkRefused(t, open(t, Config{Auth: Token, TokenFile: file(t, " \n")}), path, "empty")
	checkRefused(t, open(t, Config{Auth: Token, TokenFile: file(t, "canary\ncanary")}), path, "more than one line")
	checkRefused(t, open(t, Config{Auth: Token, TokenFile: file(t, strings.Repeat("canary", 20000))}), path, "more than one line")
	checkRefused(t, open(t, Config{Auth: Token, TokenFile: t.TempDir()}), path, "make it a file")
}

// VAULT_TOKEN is for the method token alone, and only if main hands it over.
func TestTheTokenOfTheEnvironmentIsNeverUsedByItself(t *testing.T) {
	v := realVault(t)
	p := startProxy(t, v.Addr)
	t.Setenv("VAULT_ADDR", p.url())
	t.Setenv("VAULT_TOKEN", v.RootToken)
	path, _ := secretFor(t, v)
	checkRefused(t, open(t, Config{Auth: Token, TokenFile: file(t, "hvs.canary")}), path, "doesn't know the token")
	checkRefused(t, open(t, Config{Auth: JWT, AuthMount: unique(), JWTFile: file(t, "canary")}), path, "AGENT_AUTH_MOUNT")
	for _, a := range p.all() {
		if a.token == v.RootToken {
			t.Errorf("%s went out with the environment's token", a.what)
		}
	}
}

// role makes an AppRole that may read the secret, and returns its mount, name and role-id file.
func role(t testing.TB, v *vaulttest.Server, policyName string, settings map[string]any) (mount, name, roleID string) {
	t.Helper()
	mount, name = enable(t, v, "approle"), unique()
	all := map[string]any{"token_policies": policyName}
	for k, value := range settings {
		all[k] = value
	}
	write(t, v, "auth/"+mount+"/role/"+name, all)
	id := must[*api.Secret](t)(v.Client().Logical().Read("auth/" + mount + "/role/" + name + "/role-id"))
	return mount, name, file(t, id.Data["role_id"].(string)+"\n")
}

func secretID(t testing.TB, v *vaulttest.Server, mount, name string) string {
	t.Helper()
	return write(t, v, "auth/"+mount+"/role/"+name+"/secret-id", nil).Data["secret_id"].(string)
}

// wrap returns a token that wraps what a write to path answers.
func wrap(t testing.TB, v *vaulttest.Server, path string) string {
	t.Helper()
	c := must[*api.Client](t)(v.Client().CloneWithHeaders())
	c.SetToken(v.RootToken)
	c.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	return must[*api.Secret](t)(c.Logical().Write(path, nil)).WrapInfo.Token
}

func TestLoginByAppRole(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	path, policyName := secretFor(t, v)
	mount, name, roleID := role(t, v, policyName, nil)
	idFile := file(t, secretID(t, v, mount, name)+"\n")
	c := Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: idFile}
	expect(t, open(t, c), path, "one")

	s := open(t, c)
	rewrite(t, idFile, "canary")
	checkRefused(t, s, path, "secret-id is not valid")
	rewrite(t, idFile, secretID(t, v, mount, name))
	expect(t, s, path, "one")

	c.AuthMount = unique()
	checkRefused(t, open(t, c), path, "AGENT_AUTH_MOUNT")

}

// A role may do without a secret-id. Whether it does, Vault knows: the file may just not be there yet.
func TestAMissingSecretIDFileIsNoSecretID(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	path, policyName := secretFor(t, v)
	idFile := filepath.Join(t.TempDir(), "secret-id")
	mount, _, roleID := role(t, v, policyName, map[string]any{"bind_secret_id": false, "token_bound_cidrs": "127.0.0.0/8"})
	expect(t, open(t, Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: idFile}), path, "one")

	mount, name, roleID := role(t, v, policyName, nil)
	s := open(t, Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: idFile})
	for range 7 { // Vault locks nobody out for that
		checkRefused(t, s, path, idFile+" is missing: write it, or set AGENT_SECRET_ID_FILE")
	}
	rewrite(t, idFile, secretID(t, v, mount, name))
	expect(t, s, path, "one")
}

func TestAWrappedSecretIDIsUnwrappedOnceAndServesEveryLogin(t *testing.T) {
	v := realVault(t)
	p := startProxy(t, v.Addr)
	t.Setenv("VAULT_ADDR", p.url())
	path, policyName := secretFor(t, v)
	mount, name, roleID := role(t, v, policyName, nil)
	idPath := "auth/" + mount + "/role/" + name + "/secret-id"
	wrapped := file(t, wrap(t, v, idPath))
	c := Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: wrapped}
	s := open(t, c)
	expect(t, s, path, "one")
	for range 2 {
		revoke(t, v, s)
		expect(t, s, path, "one")
	}
	if n := p.count("sys/wrapping/unwrap"); n != 1 {
		t.Errorf("it was unwrapped %d times, want once", n)
	}

	// Another wrapping token in the file is another secret-id.
	rewrite(t, wrapped, wrap(t, v, idPath))
	revoke(t, v, s)
	expect(t, s, path, "one")
	if n := p.count("sys/wrapping/unwrap"); n != 2 {
		t.Errorf("after the file changed it was unwrapped %d times in all, want twice", n)
	}

	// Somebody else, a restarted agent for instance, can't use it again.
	checkRefused(t, open(t, c), path, "intercepted")
	checkRefused(t, open(t, c), path, "intercepted")
}

// An attacker who unwrapped the secret-id may leave a wrapping token of his own making in its place.
func TestAWrappingTokenOfAnotherMakeIsNotTouched(t *testing.T) {
	v := realVault(t)
	p := startProxy(t, v.Addr)
	t.Setenv("VAULT_ADDR", p.url())
	path, policyName := secretFor(t, v)
	mount, _, roleID := role(t, v, policyName, nil)
	other, otherName, _ := role(t, v, policyName, nil)
	c := must[*api.Client](t)(v.Client().CloneWithHeaders())
	c.SetToken(v.RootToken)
	forged := must[*api.Secret](t)(c.Logical().Write("sys/wrapping/wrap", map[string]any{"secret_id": "canary"})).WrapInfo.Token
	for what, token := range map[string]string{
		"sys/wrapping/wrap": forged,
		"another mount":     wrap(t, v, "auth/"+other+"/role/"+otherName+"/secret-id"),
	} {
		s := open(t, Config{Auth: AppRole, AuthMount: mount, RoleIDFile: roleID, SecretIDFile: file(t, token)})
		if e := checkKind(t, s, path, source.Unauthenticated); !strings.Contains(e.Reason, "holds no secret-id") {
			t.Errorf("%s: %q", what, e.Reason)
		}
	}
	if n := p.count("sys/wrapping/unwrap"); n != 0 {
		t.Errorf("%d forged tokens were unwrapped", n)
	}
}

func TestWrapsSecretID(t *testing.T) {
	for path, want := range map[string]bool{
		"auth/approle/role/r/secret-id":        true,
		"auth/approle/role/r/custom-secret-id": true,
		"team/auth/approle/role/r/secret-id":   true,
		"auth/approle/role//secret-id":         false,
		"auth/approle/role/r/role-id":          false,
		"auth/approle/role/r/secret-id/lookup": false,
		"auth/approle2/role/r/secret-id":       false,
		"x/auth/approle/role/r/secret-id":      false,
		"":                                     false,
	} {
		if got := wrapsSecretID(path, "approle", "team/"); got != want {
			t.Errorf("%q: %t, want %t", path, got, want)
		}
	}
}

// sign makes a JSON web token with ES256.
func sign(t testing.TB, key *ecdsa.PrivateKey, claims map[string]any) string {
	t.Helper()
	encode := base64.RawURLEncoding.EncodeToString
	body := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(must[[]byte](t)(json.Marshal(claims)))
	sum := sha256.Sum256([]byte(body))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return body + "." + encode(signature)
}

func newKey(t testing.TB) (*ecdsa.PrivateKey, string) {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must[[]byte](t)(x509.MarshalPKIXPublicKey(crypto.PublicKey(&key.PublicKey)))
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

func TestLoginByJWTReadsTheFileAgain(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	path, policyName := secretFor(t, v)
	key, public := newKey(t)
	mount := enable(t, v, "jwt")
	write(t, v, "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": public})
	write(t, v, "auth/"+mount+"/role/agent", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": policyName,
	})
	claims := func(expires time.Duration) map[string]any {
		now := time.Now()
		return map[string]any{"sub": "agent", "aud": "vault", "iat": now.Add(-time.Hour).Unix(), "nbf": now.Add(-time.Hour).Unix(), "exp": now.Add(expires).Unix()}
	}
	jwt := file(t, sign(t, key, claims(-30*time.Minute)))
	s := open(t, Config{Auth: JWT, AuthMount: mount, AuthRole: "agent", JWTFile: jwt})
	checkRefused(t, s, path, "expired")
	rewrite(t, jwt, sign(t, key, claims(time.Hour)))
	expect(t, s, path, "one")

	stranger, _ := newKey(t)
	checkRefused(t, open(t, Config{Auth: JWT, AuthMount: mount, AuthRole: "agent", JWTFile: file(t, sign(t, stranger, claims(time.Hour)))}), path, "log in at auth/"+mount)
	checkRefused(t, open(t, Config{Auth: JWT, AuthMount: mount, AuthRole: "nobody", JWTFile: jwt}), path, "AGENT_AUTH_ROLE")
}

func TestLoginByKubernetes(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_ADDR", v.Addr)
	path, policyName := secretFor(t, v)
	key, _ := newKey(t)
	jwt := sign(t, key, map[string]any{
		"sub": "system:serviceaccount:prod:app", "exp": time.Now().Add(time.Hour).Unix(), "nbf": time.Now().Add(-time.Hour).Unix(),
		"kubernetes.io": map[string]any{"namespace": "prod", "serviceaccount": map[string]any{"name": "app", "uid": "u-1"}},
	})
	reviews := httptest.NewServer(tokenReview(jwt))
	defer reviews.Close()
	mount := enable(t, v, "kubernetes")
	write(t, v, "auth/"+mount+"/config", map[string]any{
		"kubernetes_host": reviews.URL, "disable_local_ca_jwt": true, "token_reviewer_jwt": jwt,
	})
	for name, account := range map[string]string{"mine": "app", "others": "other"} {
		write(t, v, "auth/"+mount+"/role/"+name, map[string]any{
			"bound_service_account_names": account, "bound_service_account_namespaces": "prod", "token_policies": policyName,
		})
	}
	c := Config{Auth: Kubernetes, AuthMount: mount, AuthRole: "mine", JWTFile: file(t, jwt)}
	expect(t, open(t, c), path, "one")
	c.AuthRole = "others"
	checkRefused(t, open(t, c), path, "not for this service account")
	c.AuthRole = "nobody"
	checkRefused(t, open(t, c), path, "AGENT_AUTH_ROLE")
}

// tokenReview is as much of a Kubernetes API server as Vault asks.
func tokenReview(known string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var review struct{ Spec struct{ Token string } }
		json.NewDecoder(r.Body).Decode(&review)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusCreated)
		json.NewEncoder(w).Encode(map[string]any{
			"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
			"status": map[string]any{
				"authenticated": review.Spec.Token == known,
				"user":          map[string]any{"username": "system:serviceaccount:prod:app", "uid": "u-1", "groups": []string{"system:serviceaccounts"}},
			},
		})
	}
}

// A login that is refused costs one request, not one for each that waits for it, and is tried again by the next read.
func TestARefusedLoginIsSharedByThoseWhoWait(t *testing.T) {
	v := realVault(t)
	p := startProxy(t, v.Addr)
	t.Setenv("VAULT_ADDR", p.url())
	s := open(t, Config{Auth: AppRole, AuthMount: enable(t, v, "approle"), RoleIDFile: file(t, "canary"), SecretIDFile: file(t, "canary")})
	waiting := p.makeHang()
	const readers = 100
	outcomes := make(chan error, readers)
	arrived := make(chan struct{}, readers)
	for range readers {
		go func() {
			arrived <- struct{}{}
			_, err := s.Fetch(context.Background(), "x/y")
			outcomes <- err
		}()
	}
	for range readers {
		<-arrived
	}
	<-waiting
	p.resume()
	for range readers {
		if e, ok := errors.AsType[*source.Error](<-outcomes); !ok || e.Kind != source.Unauthenticated {
			t.Fatalf("%v, want unauthenticated", e)
		}
	}
	if n := p.count("/login"); n > readers/4 {
		t.Errorf("%d readers made %d logins", readers, n)
	}
}
