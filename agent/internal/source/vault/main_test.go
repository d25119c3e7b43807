package vault

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

// shared is the one Vault that most tests use, each with mounts, policies and roles of its own. It starts when first asked for.
var shared = struct {
	once   sync.Once
	server *vaulttest.Server
	err    error
}{}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.server != nil {
		if err := shared.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// realVault returns the shared Vault. VAULT_* of the machine are out of the way from then on.
func realVault(t testing.TB) *vaulttest.Server {
	t.Helper()
	shared.once.Do(func() {
		binary, err := vaulttest.Binary(context.Background(), os.Stderr)
		if err != nil {
			shared.err = err
			return
		}
		shared.server, shared.err = vaulttest.Start(context.Background(), vaulttest.Options{Binary: binary})
	})
	if shared.err != nil {
		vaulttest.Missing(t, shared.err)
	}
	clearEnvironment(t)
	return shared.server
}

func clearEnvironment(t testing.TB) {
	for _, entry := range os.Environ() {
		if name, _, _ := strings.Cut(entry, "="); strings.HasPrefix(name, "VAULT_") && name != "VAULT_BIN" {
			t.Setenv(name, "")
		}
	}
}

// unique returns a name that no other test has.
func unique() string { return "t" + strings.ToLower(rand.Text()[:10]) }

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// write writes to Vault as root.
func write(t testing.TB, v *vaulttest.Server, path string, data map[string]any) *api.Secret {
	t.Helper()
	return must[*api.Secret](t)(v.Client().Logical().WriteWithContext(context.Background(), path, data))
}

func mountKV(t testing.TB, v *vaulttest.Server, version string) string {
	t.Helper()
	path := unique()
	if err := v.Client().Sys().Mount(path, &api.MountInput{Type: "kv", Options: map[string]string{"version": version}}); err != nil {
		t.Fatal(err)
	}
	// Vault upgrades a new mount of version 2 in the background, and answers 400 meanwhile.
	eventually(t, "the mount takes writes", func() bool {
		_, err := v.Client().Logical().List(path + "/metadata")
		return version != "2" || err == nil
	})
	return path
}

// policy makes a policy that lets its tokens read at paths.
func policy(t testing.TB, v *vaulttest.Server, name string, paths ...string) string {
	t.Helper()
	var rules strings.Builder
	for _, p := range paths {
		fmt.Fprintf(&rules, "path %q { capabilities = [\"read\"] }\n", p)
	}
	if rules.Len() == 0 {
		rules.WriteString("path \"nowhere\" { capabilities = [\"deny\"] }")
	}
	if err := v.Client().Sys().PutPolicy(name, rules.String()); err != nil {
		t.Fatal(err)
	}
	return name
}

func newToken(t testing.TB, v *vaulttest.Server, r api.TokenCreateRequest) string {
	t.Helper()
	return must[*api.Secret](t)(v.Client().Auth().Token().Create(&r)).Auth.ClientToken
}

// file writes content to a new file and returns its path.
func file(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "credential")
	rewrite(t, path, content)
	return path
}

func rewrite(t testing.TB, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// open makes a driver that is closed with the test.
func open(t testing.TB, c Config) *Source {
	t.Helper()
	s := must[*Source](t)(New(c, slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))))
	t.Cleanup(func() { s.Close(context.Background()) })
	return s
}

// expect reads the field "k" at path and wants value in it.
func expect(t testing.TB, s *Source, path, value string) *source.Record {
	t.Helper()
	record, err := s.Fetch(context.Background(), path)
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	got, err := record.Value("k")
	if err != nil || string(got.Reveal()) != value {
		t.Fatalf("%s#k is not what was stored (%v)", path, err)
	}
	return record
}

// eventually polls until ok, for as long as a slow machine may need.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never came to this: %s", what)
		}
	}
}
