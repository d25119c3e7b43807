package vaulttest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/examples/porttest"
)

func write(t *testing.T, c *api.Client) {
	t.Helper()
	if _, err := c.KVv2("secret").Put(t.Context(), "x", map[string]any{"k": "v"}); err != nil {
		t.Fatal(err)
	}
}

func TestVaultIsSealedUnsealedAndStartedAgainInTheSamePlace(t *testing.T) {
	t.Setenv("VAULT_ADDR", "http://127.0.0.1:1")
	t.Setenv("VAULT_NAMESPACE", "elsewhere")
	var log bytes.Buffer
	s := ForTest(t, Options{TLS: true, Log: &log, Listen: porttest.Loopback(t)})
	write(t, s.Client())
	if err := s.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client().KVv2("secret").Get(t.Context(), "x"); err == nil || !strings.Contains(err.Error(), "sealed") {
		t.Errorf("a sealed Vault answers %v", err)
	}
	if err := s.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Client().KVv2("secret").Get(t.Context(), "x"); err != nil {
		t.Errorf("after unsealing the secret is gone: %v", err)
	}
	if err := s.Stop(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(log.String(), "Vault") {
		t.Error("nothing was logged")
	}
	again := ForTest(t, Options{TLS: true, Listen: s.Listen, RootToken: s.RootToken})
	if again.Addr != s.Addr {
		t.Errorf("it is at %s, was at %s", again.Addr, s.Addr)
	}
	write(t, again.Client())
}

func TestAPausedVaultAnswersNothingUntilItGoesOn(t *testing.T) {
	s := ForTest(t, Options{})
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := s.Client().KVv2("secret").Get(ctx, "x"); ctx.Err() == nil {
		t.Errorf("a paused Vault answered: %v", err)
	}
	if err := s.Resume(); err != nil {
		t.Fatal(err)
	}
	write(t, s.Client())
	if err := s.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Errorf("a paused Vault can't be stopped: %v", err)
	}
}

func TestATakenPortIsAnErrorAndLeavesNothing(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir()) // in the usual place the Vaults of other tests come and go
	first := ForTest(t, Options{})
	before := leftovers(t)
	if _, err := Start(t.Context(), Options{Listen: first.Listen}); err == nil || !strings.Contains(err.Error(), "port") {
		t.Errorf("a second Vault on one port: %v", err)
	}
	if after := leftovers(t); after != before {
		t.Errorf("temporary directories: %d before, %d after", before, after)
	}
}

// Without VAULT_BIN and without a vault on PATH examples/devvault is asked. It finds its binary, whatever the directory.
func TestBinaryIsWhatVariablePathOrBuildGive(t *testing.T) {
	dir := t.TempDir()
	program := filepath.Join(dir, "vault")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Fatal(err)
	}
	expect := func(what, want string) {
		t.Helper()
		if got, err := Binary(t.Context(), t.Output()); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", what, got, err, want)
		}
	}
	t.Setenv("VAULT_BIN", program)
	expect("VAULT_BIN", program)
	t.Setenv("VAULT_BIN", filepath.Join(dir, "missing"))
	if _, err := Binary(t.Context(), t.Output()); err == nil || !strings.Contains(err.Error(), "VAULT_BIN") {
		t.Errorf("a VAULT_BIN that is missing: %v", err)
	}
	t.Setenv("VAULT_BIN", "")
	t.Setenv("PATH", dir)
	expect("PATH", program)

	t.Setenv("PATH", filepath.Dir(goTool)+":/usr/bin:/bin")
	if _, err := exec.LookPath("vault"); err == nil {
		t.Skip("there is a vault beside go")
	}
	built := filepath.Join(dir, "keyturn", "vault-"+devvaultVersion(t)+"-"+runtime.GOOS+"-"+runtime.GOARCH)
	if err := os.Mkdir(filepath.Dir(built), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(program, built); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GOCACHE", goEnv(t, "GOCACHE"))
	t.Setenv("XDG_CACHE_HOME", dir)
	expect("devvault", built)
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func devvaultVersion(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("go", "list", "-m", "-f", "{{.Version}}", "github.com/hashicorp/vault")
	cmd.Dir = "../devvault"
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func leftovers(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir(os.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "vaulttest-") {
			n++
		}
	}
	return n
}

// The quickstart may be killed: no Vault may outlive it.
func TestVaultDiesWithItsParent(t *testing.T) {
	if os.Getenv("VAULTTEST_PARENT") == "1" {
		s, err := Start(t.Context(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("PID " + s.Addr + "\n")
		select {}
	}
	binary, err := Binary(t.Context(), os.Stderr)
	if err != nil {
		Missing(t, err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestVaultDiesWithItsParent$")
	cmd.Env = append(os.Environ(), "VAULTTEST_PARENT=1", "VAULT_BIN="+binary, "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 256)
	n, err := out.Read(buffer)
	if err != nil {
		t.Fatal(err)
	}
	addr := strings.TrimSpace(strings.TrimPrefix(string(buffer[:n]), "PID "))
	cmd.Process.Kill()
	cmd.Wait()

	config := api.DefaultConfig()
	config.Address, config.MaxRetries = addr, 0
	client, err := api.NewClient(config)
	if err != nil {
		t.Fatal(err)
	}
	deadline := time.After(20 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); ; {
		if _, err := client.Sys().HealthWithContext(t.Context()); err != nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("Vault outlived its parent")
		}
	}
}
