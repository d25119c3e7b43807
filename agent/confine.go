package main

import (
	"cmp"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/keyturn/keyturn/agent/internal/confine"
	"github.com/keyturn/keyturn/agent/internal/source/vault"
)

// Values of AGENT_CONFINE.
const (
	confineOff        = "off"
	confineBestEffort = "best-effort"
	confineRequire    = "require"
)

// confinement is what the agent allows itself while it runs.
type confinement struct {
	mode  string
	rules confine.Rules
	// unbounded says why reading can't be bounded; empty if it can.
	unbounded string
}

// Directories that Go's resolver and the search for CA files read in (net, crypto/x509), and what metrics of the process are
// made of.
var (
	systemDirs  = []string{"/etc", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/proc/self"}
	systemFiles = []string{"/proc/stat"}
)

// confinement reads what must stay allowed: the directories of all files that the configuration names, and the ports of all
// addresses.
func (p *problems) confinement(v variables, gemini string, environ []string) confinement {
	c := confinement{mode: p.oneOf("AGENT_CONFINE", v.Confine, confineBestEffort, confineRequire, confineOff)}
	get := func(name string) string { return valueOf(environ, name) }
	c.rules.ReadFiles = systemFiles
	c.rules.Read = append(slices.Clone(systemDirs), get("VAULT_CAPATH"))
	c.rules.Read = append(c.rules.Read, filepath.SplitList(get("SSL_CERT_DIR"))...)
	c.rules.Read = slices.DeleteFunc(c.rules.Read, func(dir string) bool { return dir == "" })
	home := get("HOME")
	files := map[string]string{
		"/etc/resolv.conf": "/etc/resolv.conf", "VAULT_CACERT": get("VAULT_CACERT"), "VAULT_CLIENT_CERT": get("VAULT_CLIENT_CERT"),
		"VAULT_CLIENT_KEY": get("VAULT_CLIENT_KEY"), "SSL_CERT_FILE": get("SSL_CERT_FILE"),
	}
	for variable, file := range credentialFiles(v, home, get("VAULT_TOKEN") != "") {
		files[variable] = file
	}
	for variable, file := range files {
		if file == "" {
			continue
		}
		dirs, err := confine.Directories(file, home)
		switch {
		case err == nil:
			c.rules.Read = append(c.rules.Read, dirs...)
		case c.mode == confineRequire:
			p.say(variable, err.Error()+", or set AGENT_CONFINE=best-effort")
		default:
			c.unbounded = variable + ": " + err.Error()
		}
	}
	c.rules.Connect = append(p.ports("AGENT_CONNECT_PORTS", v.ConnectPorts), 53)
	for _, address := range []string{cmp.Or(get("VAULT_ADDR"), "https://127.0.0.1:8200"), get("VAULT_AGENT_ADDR"), get("VAULT_PROXY_ADDR"), get("VAULT_HTTP_PROXY"),
		get("HTTPS_PROXY"), get("HTTP_PROXY"), get("https_proxy"), get("http_proxy"), gemini} {
		if port, ok := portOf(address); ok {
			c.rules.Connect = append(c.rules.Connect, port)
		}
	}
	return c
}

// credentialFiles returns the files that the method of logging in reads, by the variable that names each.
func credentialFiles(v variables, home string, tokenInEnvironment bool) map[string]string {
	switch vault.Method(v.Auth) {
	case vault.Token:
		if v.TokenFile == "" && tokenInEnvironment {
			return nil
		}
		return map[string]string{"AGENT_TOKEN_FILE": cmp.Or(v.TokenFile, filepath.Join(home, ".vault-token"))}
	case vault.AppRole:
		return map[string]string{"AGENT_ROLE_ID_FILE": v.RoleIDFile, "AGENT_SECRET_ID_FILE": v.SecretIDFile}
	case vault.Kubernetes, vault.JWT:
		return map[string]string{"AGENT_JWT_FILE": v.JWTFile}
	}
	return nil
}

// portOf returns the TCP port of a URL, or of a proxy that is written without a scheme; false if it has none.
func portOf(address string) (uint16, bool) {
	if address == "" {
		return 0, false
	}
	if !strings.Contains(address, "://") {
		address = "http://" + address
	}
	u, err := url.Parse(address)
	if err != nil {
		return 0, false
	}
	port := cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443", "socks5": "1080"}[u.Scheme])
	n, err := strconv.ParseUint(port, 10, 16)
	return uint16(n), err == nil
}

func (p *problems) ports(name, value string) []uint16 {
	var ports []uint16
	for _, text := range strings.FieldsFunc(value, func(c rune) bool { return c == ',' || c == ' ' }) {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || n == 0 {
			p.say(name, "is not a list of ports: write it like 8201,8443")
			return nil
		}
		ports = append(ports, uint16(n))
	}
	return ports
}

// errNotConfined is what apply returns, wrapped, where AGENT_CONFINE=require and something is missing.
var errNotConfined = errors.New("AGENT_CONFINE=require")

// apply confines the process. dir is where it renders. It returns what is missing, in words for the log.
func (c confinement) apply(dir string) (missing []string, err error) {
	if c.mode == confineOff {
		return nil, nil
	}
	rules := c.rules
	rules.Write = writable(dir)
	if c.unbounded != "" {
		rules.Read = append(slices.Clone(rules.Read), "/")
		missing = append(missing, "reading isn't confined ("+c.unbounded+")")
	}
	found, err := confine.Apply(rules)
	missing = append(missing, found...)
	switch {
	case err != nil && c.mode == confineRequire:
		return nil, fmt.Errorf("%w: %w", errNotConfined, err)
	case err != nil:
		return append(missing, err.Error()), nil
	case len(missing) > 0 && c.mode == confineRequire:
		return nil, fmt.Errorf("%w, and %s: use a newer kernel, or set it to best-effort", errNotConfined, strings.Join(missing, "; "))
	}
	return missing, nil
}

// writable returns dir or, if dir is alone in it, the directory above: then a directory that somebody has replaced can be
// repaired, since a rule holds for the directory that it was made for.
func writable(dir string) []string {
	parent := filepath.Dir(dir)
	if entries, err := os.ReadDir(parent); err == nil && len(entries) == 1 && parent != "/" {
		return []string{parent}
	}
	return []string{dir}
}
