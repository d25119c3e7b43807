package vaulttest

import (
	"context"
	"os"
	"testing"
)

// ForTest starts a Vault that ends with the test. Where none can be had, the test is skipped, or fails if CI is "true".
func ForTest(t testing.TB, o Options) *Server {
	t.Helper()
	if o.Binary == "" {
		binary, err := Binary(t.Context(), os.Stderr)
		if err != nil {
			Missing(t, err)
		}
		o.Binary = binary
	}
	s, err := Start(context.WithoutCancel(t.Context()), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// Missing ends a test that has no Vault: a failure where CI is "true", else a skip that says so.
func Missing(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("no Vault to test against: %v", err)
	}
	t.Skipf("NOT TESTED, there is no Vault: set VAULT_BIN to one (%v)", err)
}
