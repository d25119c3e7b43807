package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestAConfinedAgentMayReadWhereItsFilesLieAndConnectWhereItsAddressesLead(t *testing.T) {
	tests := []struct {
		name      string
		variables map[string]string
		read      []string
		connect   []uint16
	}{
		{"nothing is set", map[string]string{"AGENT_TOKEN_FILE": "/run/token/t"}, []string{"/etc", "/proc/self", "/run/token"}, []uint16{53, 443, 8200}},
		{"approle", map[string]string{"AGENT_AUTH": "approle", "AGENT_ROLE_ID_FILE": "/run/role/id", "AGENT_SECRET_ID_FILE": "/run/secret/id"},
			[]string{"/run/role", "/run/secret"}, nil},
		{"a projected token", map[string]string{"AGENT_AUTH": "kubernetes", "AGENT_AUTH_ROLE": "r", "AGENT_JWT_FILE": "/var/run/vault/token"},
			[]string{"/var/run/vault"}, nil},
		{"certificates", map[string]string{"AGENT_AUTH": "cert", "SSL_CERT_FILE": "/ssl/file/ca.pem", "SSL_CERT_DIR": "/ssl/a:/ssl/b"},
			[]string{"/ssl/file", "/ssl/a", "/ssl/b"}, nil},
		{"addresses", map[string]string{"AGENT_AUTH": "cert", "VAULT_ADDR": "https://vault.example:8299", "GOOGLE_GEMINI_BASE_URL": "https://gemini.example:444",
			"HTTPS_PROXY": "proxy.example:3128", "VAULT_PROXY_ADDR": "http://proxy.example", "AGENT_CONNECT_PORTS": "8201, 8202"},
			nil, []uint16{53, 80, 444, 3128, 8201, 8202, 8299}},
		{"Vault on a socket", map[string]string{"AGENT_AUTH": "cert", "VAULT_ADDR": "unix:///run/vault.sock"}, nil, []uint16{53, 443}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			config, _, err := loaded(t, test.variables)
			c := config.Confine
			if err != nil || c.unbounded != "" || c.mode != confineBestEffort {
				t.Errorf("%v, %q, %q", err, c.unbounded, c.mode)
			}
			for _, dir := range test.read {
				if !slices.Contains(c.rules.Read, dir) {
					t.Errorf("%s may not be read: %v", dir, c.rules.Read)
				}
			}
			slices.Sort(c.rules.Connect)
			if test.connect != nil && !slices.Equal(slices.Compact(c.rules.Connect), test.connect) {
				t.Errorf("ports %v, want %v", c.rules.Connect, test.connect)
			}
		})
	}
}

func TestCredentialsInAHomeLeaveReadingUnconfinedOrAreAProblem(t *testing.T) {
	home := map[string]string{"HOME": "/home/someone"}
	if c, _, err := loaded(t, home); !strings.Contains(c.Confine.unbounded, "AGENT_TOKEN_FILE") || err != nil {
		t.Errorf("%q, %v", c.Confine.unbounded, err)
	}
	home["AGENT_CONFINE"] = confineRequire
	if _, _, err := loaded(t, home); err == nil || !strings.Contains(err.Error(), "AGENT_TOKEN_FILE /home/someone/.vault-token: ") {
		t.Errorf("%v", err)
	}
}

func TestPortsAreNumbers(t *testing.T) {
	for _, value := range []string{"http", "0", "65536", "8201;8202", "-1"} {
		p := &problems{}
		if p.ports("AGENT_CONNECT_PORTS", value); p.err() == nil {
			t.Errorf("%q is taken", value)
		}
	}
}

func TestTheDirectoryAboveIsWritableOnlyIfNothingElseIsThere(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "keys")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if got := writable(dir); !slices.Equal(got, []string{parent}) {
		t.Errorf("alone: %v", got)
	}
	if err := os.WriteFile(filepath.Join(parent, "other"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := writable(dir); !slices.Equal(got, []string{dir}) {
		t.Errorf("beside another: %v", got)
	}
}
