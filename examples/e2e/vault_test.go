package e2e

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

// shared are the Vaults that the tests share, one over plain HTTP and one over TLS, started when first asked for. Each test
// has secrets, policies and roles of its own. Who seals, pauses or stops a Vault starts one for himself.
var shared vaults

type vaults struct {
	mu    sync.Mutex
	plain *vaulttest.Server
	tls   *vaulttest.Server
}

func plainVault(t testing.TB) *vaulttest.Server {
	t.Helper()
	return shared.get(t, &shared.plain, vaulttest.Options{})
}

func tlsVault(t testing.TB) *vaulttest.Server {
	t.Helper()
	return shared.get(t, &shared.tls, vaulttest.Options{TLS: true})
}

func (v *vaults) get(t testing.TB, server **vaulttest.Server, o vaulttest.Options) *vaulttest.Server {
	t.Helper()
	v.mu.Lock()
	defer v.mu.Unlock()
	if *server != nil {
		return *server
	}
	binary, err := vaulttest.Binary(context.Background(), os.Stderr)
	if err != nil {
		vaulttest.Missing(t, err)
	}
	o.Binary = binary
	*server = must[*vaulttest.Server](t)(vaulttest.Start(context.Background(), o))
	return *server
}

func (v *vaults) stop() error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var errs []error
	for _, server := range []*vaulttest.Server{v.plain, v.tls} {
		if server != nil {
			errs = append(errs, server.Stop())
		}
	}
	return errors.Join(errs...)
}

// unique returns a name that no other test has, and newValue a secret.
func unique() string   { return "t" + strings.ToLower(rand.Text()[:10]) }
func newValue() string { return canary + rand.Text() }

// write writes to Vault as root.
func write(t testing.TB, v *vaulttest.Server, path string, data map[string]any) *api.Secret {
	t.Helper()
	return must[*api.Secret](t)(v.Client().Logical().WriteWithContext(context.Background(), path, data))
}

// put makes fields the newest version of secret/name.
func put(t testing.TB, v *vaulttest.Server, name string, fields map[string]any) {
	t.Helper()
	write(t, v, "secret/data/"+name, map[string]any{"data": fields})
}

// newSecret puts a new value into the field k of a new secret, and returns its name and the value.
func newSecret(t testing.TB, v *vaulttest.Server) (name, value string) {
	t.Helper()
	name, value = unique(), newValue()
	put(t, v, name, map[string]any{"k": value})
	return name, value
}

// allow makes the policy name one that may read these secrets and no others, and returns the name.
func allow(t testing.TB, v *vaulttest.Server, name string, secrets ...string) string {
	t.Helper()
	var rules strings.Builder
	for _, s := range secrets {
		fmt.Fprintf(&rules, "path %q { capabilities = [\"read\"] }\n", "secret/data/"+s)
	}
	rules.WriteString("path \"nothing\" { capabilities = [\"deny\"] }\n")
	if err := v.Client().Sys().PutPolicy(name, rules.String()); err != nil {
		t.Fatal(err)
	}
	return name
}

// tokenFile returns a file with a new token of that policy.
func tokenFile(t testing.TB, v *vaulttest.Server, policy string) string {
	t.Helper()
	return file(t, newToken(t, v, policy))
}

func newToken(t testing.TB, v *vaulttest.Server, policy string) string {
	t.Helper()
	r := &api.TokenCreateRequest{Policies: []string{policy}}
	return must[*api.Secret](t)(v.Client().Auth().Token().Create(r)).Auth.ClientToken
}

// enable mounts an auth method at a path of its own.
func enable(t testing.TB, v *vaulttest.Server, method string) (mount string) {
	t.Helper()
	mount = unique()
	if err := v.Client().Sys().EnableAuthWithOptions(mount, &api.EnableAuthOptions{Type: method}); err != nil {
		t.Fatal(err)
	}
	return mount
}

// reach returns the variables that lead to v.
func reach(v *vaulttest.Server) []string {
	return []string{"VAULT_ADDR=" + v.Addr, "VAULT_CACERT=" + v.CACert}
}
