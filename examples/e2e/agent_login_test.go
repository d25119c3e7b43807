package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

// login is one way to log in: it sets v up for policy and returns the agent's variables.
type login func(t *testing.T, v *vaulttest.Server, policy string) []string

func TestAKeyReachesItsFileByEveryWayToLogIn(t *testing.T) {
	for name, by := range map[string]login{
		"a token in a file": func(t *testing.T, v *vaulttest.Server, policy string) []string {
			return []string{"AGENT_TOKEN_FILE=" + tokenFile(t, v, policy)}
		},
		"a token in the environment": func(t *testing.T, v *vaulttest.Server, policy string) []string {
			return []string{"VAULT_TOKEN=" + newToken(t, v, policy)}
		},
		"approle":                          byAppRole,
		"approle with a wrapped secret-id": byWrappedAppRole,
		"jwt":                              byJWT,
		"a client certificate":             byCertificate,
	} {
		t.Run(name, func(t *testing.T) {
			v := tlsVault(t)
			secret, value := newSecret(t, v)
			environ := append(by(t, v, allow(t, v, unique(), secret)), reach(v)...)
			a := startAgent(t, filepath.Join(memory(t), "keys"), append(environ, entries("key="+secret))).started(t).ready(t)
			assertRendered(t, a.path("key"), value)
			if got := names(t, a.dir); !slices.Equal(got, []string{"agent.sock", "key"}) {
				t.Errorf("beside the file are %q", got)
			}
			if r := a.readyz(t); r.Files[0].Version != "1" || r.Files[0].Waits != "" {
				t.Errorf("/readyz says %+v", r)
			}
			if code := a.stop(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}

// appRole makes a role and returns its mount, its path and the variables without the secret-id.
func appRole(t *testing.T, v *vaulttest.Server, policy string) (path string, environ []string) {
	t.Helper()
	mount := enable(t, v, "approle")
	path = "auth/" + mount + "/role/agent"
	write(t, v, path, map[string]any{"token_policies": policy, "token_ttl": "1h"})
	id := must[*api.Secret](t)(v.Client().Logical().Read(path + "/role-id")).Data["role_id"].(string)
	return path, []string{"AGENT_AUTH=approle", "AGENT_AUTH_MOUNT=" + mount, "AGENT_ROLE_ID_FILE=" + file(t, id)}
}

func byAppRole(t *testing.T, v *vaulttest.Server, policy string) []string {
	path, environ := appRole(t, v, policy)
	id := write(t, v, path+"/secret-id", nil).Data["secret_id"].(string)
	return append(environ, "AGENT_SECRET_ID_FILE="+file(t, id+"\n"))
}

func byWrappedAppRole(t *testing.T, v *vaulttest.Server, policy string) []string {
	path, environ := appRole(t, v, policy)
	c := must[*api.Client](t)(v.Client().CloneWithHeaders())
	c.SetToken(v.RootToken)
	c.SetWrappingLookupFunc(func(string, string) string { return "5m" })
	wrapped := must[*api.Secret](t)(c.Logical().Write(path+"/secret-id", nil)).WrapInfo.Token
	return append(environ, "AGENT_SECRET_ID_FILE="+file(t, wrapped))
}

func byJWT(t *testing.T, v *vaulttest.Server, policy string) []string {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	public := must[[]byte](t)(x509.MarshalPKIXPublicKey(&key.PublicKey))
	mount := enable(t, v, "jwt")
	write(t, v, "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": inPEM("PUBLIC KEY", public)})
	write(t, v, "auth/"+mount+"/role/agent", map[string]any{
		"role_type": "jwt", "user_claim": "sub", "bound_audiences": "vault", "token_policies": policy,
	})
	now := time.Now()
	claims := must[[]byte](t)(json.Marshal(map[string]any{
		"sub": "agent", "aud": "vault", "nbf": now.Add(-time.Minute).Unix(), "iat": now.Add(-time.Minute).Unix(), "exp": now.Add(time.Hour).Unix(),
	}))
	encode := base64.RawURLEncoding.EncodeToString
	body := encode([]byte(`{"alg":"ES256","typ":"JWT"}`)) + "." + encode(claims)
	sum := sha256.Sum256([]byte(body))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	signature := append(r.FillBytes(make([]byte, 32)), s.FillBytes(make([]byte, 32))...)
	return []string{"AGENT_AUTH=jwt", "AGENT_AUTH_MOUNT=" + mount, "AGENT_AUTH_ROLE=agent", "AGENT_JWT_FILE=" + file(t, body+"."+encode(signature))}
}

func byCertificate(t *testing.T, v *vaulttest.Server, policy string) []string {
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "agent"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	certificate := inPEM("CERTIFICATE", der)
	mount := enable(t, v, "cert")
	write(t, v, "auth/"+mount+"/certs/agent", map[string]any{"certificate": certificate, "token_policies": policy})
	return []string{
		"AGENT_AUTH=cert", "AGENT_AUTH_MOUNT=" + mount, "AGENT_AUTH_ROLE=agent", "VAULT_CLIENT_CERT=" + file(t, certificate),
		"VAULT_CLIENT_KEY=" + file(t, inPEM("EC PRIVATE KEY", must[[]byte](t)(x509.MarshalECPrivateKey(key)))),
	}
}

func inPEM(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// A wrapped secret-id works once. The agent that has it logs in again and again all the same.
func TestAnAgentWithAWrappedSecretIDOutlivesItsToken(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	environ := append(byWrappedAppRole(t, v, allow(t, v, unique(), secret)), reach(v)...)
	a := startAgent(t, filepath.Join(memory(t), "keys"), append(environ, entries("key="+secret))).started(t).ready(t)
	for i := range 3 {
		mount := environ[1][len("AGENT_AUTH_MOUNT="):]
		if err := v.Client().Sys().RevokePrefix("auth/" + mount); err != nil {
			t.Fatal(err)
		}
		value = newValue()
		put(t, v, secret, map[string]any{"k": value})
		eventually(t, fmt.Sprintf("the file follows after revocation %d", i+1), func() bool { return holds(a.path("key"), value) })
	}
	if n := a.count(func(l logged) bool { return l.Msg == "logged in to Vault" }); n != 4 {
		t.Errorf("%d logins, want 4", n)
	}
}
