package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// directories makes them below a new one, whose path has no links, and returns that.
func directories(t *testing.T, names ...string) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	for _, name := range names {
		err = errors.Join(err, os.MkdirAll(filepath.Join(root, name), 0o700))
	}
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func TestAConfinedAgentMayReadWhereItsFilesLieAndConnectWhereItsAddressesLead(t *testing.T) {
	root := directories(t, "token", "role", "secret", "a", "b")
	tests := []struct {
		name      string
		variables map[string]string // ~ stands for root
		read      []string
		connect   []uint16
	}{
		{"nothing is set", map[string]string{"AGENT_TOKEN_FILE": "~/token/t"}, []string{"/etc", "/proc/self", "~/token"}, []uint16{53, 443, 8200}},
		{"approle", map[string]string{"AGENT_AUTH": "approle", "AGENT_ROLE_ID_FILE": "~/role/id", "AGENT_SECRET_ID_FILE": "~/secret/id"},
			[]string{"~/role", "~/secret"}, nil},
		{"approle as it is by default", map[string]string{"AGENT_AUTH": "approle"}, []string{"/etc"}, nil},
		{"a projected token", map[string]string{"AGENT_AUTH": "kubernetes", "AGENT_AUTH_ROLE": "r", "AGENT_JWT_FILE": "~/token/token"},
			[]string{"~/token"}, nil},
		{"certificates", map[string]string{"AGENT_AUTH": "cert", "SSL_CERT_FILE": "~/token/ca.pem", "SSL_CERT_DIR": "~/a:~/b"},
			[]string{"~/token", "~/a", "~/b"}, nil},
		{"addresses", map[string]string{"AGENT_AUTH": "cert", "VAULT_ADDR": "https://vault.example:8299", "GOOGLE_GEMINI_BASE_URL": "https://gemini.example:444",
			"HTTPS_PROXY": "proxy.example:3128", "VAULT_PROXY_ADDR": "http://proxy.example", "AGENT_CONNECT_PORTS": "8201, 8202"},
			nil, []uint16{53, 80, 444, 3128, 8201, 8202, 8299}},
		{"a proxy of another kind", map[string]string{"AGENT_AUTH": "cert", "HTTPS_PROXY": "socks5h://proxy.example"}, nil, []uint16{53, 443, 1080, 8200}},
		{"no key is proven", map[string]string{"AGENT_AUTH": "cert", "AGENT_VALIDATE": "off"}, nil, []uint16{53, 8200}},
		{"Vault on a socket", map[string]string{"AGENT_AUTH": "cert", "VAULT_ADDR": "unix:///run/vault.sock"}, nil, []uint16{53, 443}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for name, value := range test.variables {
				test.variables[name] = strings.ReplaceAll(value, "~", root)
			}
			config, _, err := loaded(t, test.variables)
			c := config.Confine
			if err != nil || len(c.missing) > 0 || c.mode != confineBestEffort {
				t.Errorf("%v, %q, %q", err, c.missing, c.mode)
			}
			for _, dir := range test.read {
				if !slices.Contains(c.rules.Read, strings.ReplaceAll(dir, "~", root)) {
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

func TestWhatCanNotBeConfinedIsNamedWithItsMendOrIsAProblem(t *testing.T) {
	root := directories(t, "home/own", "certs")
	home := filepath.Join(root, "home")
	if err := os.Symlink(filepath.Join(home, "ca.pem"), filepath.Join(root, "certs", "ca.pem")); err != nil {
		t.Fatal(err)
	}
	wide, closed := "which is the root, a home or above one", "which is missing and would stay closed: make it before the agent starts"
	for name, c := range map[string]struct {
		variables map[string]string
		want      string // the variable and the directory
		why       string
	}{
		"the token's usual place": {nil, "AGENT_TOKEN_FILE leads into " + home + ", ", wide},
		"a file in root's home":   {map[string]string{"AGENT_TOKEN_FILE": "/root/.x"}, "AGENT_TOKEN_FILE leads into /root, ", wide},
		"a file in the root":      {map[string]string{"AGENT_AUTH": "jwt", "AGENT_JWT_FILE": "/token"}, "AGENT_JWT_FILE leads into /, ", wide},
		"above the home":          {map[string]string{"AGENT_AUTH": "cert", "SSL_CERT_FILE": root + "/ca.pem"}, "SSL_CERT_FILE leads into " + root + ", ", wide},
		"a link into the home":    {map[string]string{"AGENT_AUTH": "cert", "SSL_CERT_FILE": root + "/certs/ca.pem"}, "SSL_CERT_FILE leads into " + home + ", ", wide},
		"certificates anywhere":   {map[string]string{"AGENT_AUTH": "cert", "SSL_CERT_DIR": "/etc/ssl:/"}, "SSL_CERT_DIR leads into /, ", wide},
		"not there": {map[string]string{"AGENT_AUTH": "approle", "AGENT_SECRET_ID_FILE": root + "/late/id"},
			"AGENT_SECRET_ID_FILE leads into " + root + "/late, ", closed},
	} {
		t.Run(name, func(t *testing.T) {
			environ := map[string]string{"HOME": home}
			for k, v := range c.variables {
				environ[k] = v
			}
			config, _, err := loaded(t, environ)
			missing := config.Confine.missing
			if len(missing) != 1 || !strings.HasPrefix(missing[0], c.want+c.why) || err != nil {
				t.Errorf("%q, %v", missing, err)
			}
			if unbounded := slices.Contains(config.Confine.rules.Read, "/"); unbounded != (c.why == wide) {
				t.Errorf("reading isn't bounded: %t", unbounded)
			}
			environ["AGENT_CONFINE"] = confineRequire
			if _, _, err := loaded(t, environ); err == nil || !strings.Contains(err.Error(), c.want+c.why) {
				t.Errorf("required: %v", err)
			}
			environ["AGENT_CONFINE"] = confineOff
			if config, _, err := loaded(t, environ); err != nil || len(config.Confine.missing) > 0 {
				t.Errorf("off: %v, %q", err, config.Confine.missing)
			}
		})
	}
}

// People paste a key or a token where its path belongs. It reaches neither the message nor the log.
func TestWhatIsPastedInPlaceOfAPathIsNotQuoted(t *testing.T) {
	certificate := filepath.Join(directories(t, "certs"), "certs", "c.pem")
	if err := os.WriteFile(certificate, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := "-----BEGIN PRIVATE KEY-----\nMIGHAgEA/" + canary + "/" + canary + "\n-----END PRIVATE KEY-----\n"
	for _, c := range []struct {
		name, value string
		fails       bool // whatever AGENT_CONFINE is
	}{
		{"VAULT_CLIENT_KEY", key, true},
		{"VAULT_CLIENT_KEY", "hvs." + canary + "/" + canary, true},
		{"VAULT_CLIENT_CERT", key, true},
		{"VAULT_CACERT", key, true},
		{"VAULT_CACERT", canary + "/x", true},
		{"VAULT_CAPATH", key, true},
		{"AGENT_TOKEN_FILE", "/" + key, true},
		{"SSL_CERT_FILE", key, false},
		{"SSL_CERT_FILE", "/" + canary + "\n/x", false},
		{"SSL_CERT_DIR", canary + "/x", false},
	} {
		for _, mode := range []string{confineBestEffort, confineRequire, confineOff} {
			environ := map[string]string{"AGENT_CONFINE": mode, "VAULT_TOKEN": "x"}
			if strings.HasPrefix(c.name, "VAULT_CLIENT_") {
				environ["VAULT_CLIENT_CERT"], environ["VAULT_CLIENT_KEY"] = certificate, certificate
			}
			environ[c.name] = c.value
			config, notes, err := loaded(t, environ)
			told := strings.Join(config.Confine.missing, "; ")
			if all := fmt.Sprint(notes, err, told); strings.Contains(all, canary) {
				t.Errorf("%s, %s: the value is quoted: %s", c.name, mode, all)
			}
			if wantError := c.fails || mode == confineRequire; (err != nil) != wantError || err != nil && !strings.Contains(err.Error(), c.name) {
				t.Errorf("%s, %s: %v", c.name, mode, err)
			}
			if mode == confineBestEffort && !c.fails && !strings.Contains(told, c.name+" ") {
				t.Errorf("%s: what stays closed is not told: %q", c.name, told)
			}
		}
	}
}

// Whatever is missing is one list for one line of the log, or the error.
func TestWhatIsMissingIsToldOrIsAnError(t *testing.T) {
	lacks := []string{"truncating files isn't confined (it takes Landlock 3: Linux 6.2)", "capabilities are kept (operation not permitted)"}
	if missing, err := (confinement{mode: confineBestEffort}).judge(lacks); err != nil || !slices.Equal(missing, lacks) {
		t.Errorf("%q, %v", missing, err)
	}
	_, err := (confinement{mode: confineRequire}).judge(lacks)
	if !errors.Is(err, errNotConfined) || !strings.Contains(err.Error(), lacks[0]) || !strings.Contains(err.Error(), lacks[1]) {
		t.Errorf("%v", err)
	}
	if _, err := (confinement{mode: confineRequire}).judge(nil); err != nil {
		t.Errorf("nothing is missing: %v", err)
	}
}

func TestPortsThatDNSTellsMustBeNamed(t *testing.T) {
	srv := map[string]string{"AGENT_AUTH": "cert", "VAULT_SRV_LOOKUP": "true"}
	if _, notes, err := loaded(t, srv); err != nil || !strings.Contains(notes, "VAULT_SRV_LOOKUP: ") || !strings.Contains(notes, "AGENT_CONNECT_PORTS") {
		t.Errorf("%q, %v", notes, err)
	}
	srv["AGENT_CONNECT_PORTS"] = "8200"
	if _, notes, err := loaded(t, srv); err != nil || notes != "" {
		t.Errorf("they are named: %q, %v", notes, err)
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
