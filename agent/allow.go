package main

import (
	"cmp"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"unicode"

	"github.com/keyturn/keyturn/agent/internal/confine"
	"github.com/keyturn/keyturn/agent/internal/source/vault"
)

// What a confined agent may always read: where Go's resolver and its search for CA files look (net, crypto/x509), and what
// metrics of the process are made of.
var (
	systemDirs = []string{"/etc", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates", "/proc/self"}
	procFiles  = []string{"/proc/stat"}
)

// systemFiles and systemCAs may be links that lead out of /etc.
var (
	systemFiles = []string{
		"/etc/hosts", "/etc/nsswitch.conf", "/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/ca-bundle.pem",
		"/etc/pki/tls/cacert.pem", "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem", "/etc/ssl/cert.pem",
	}
	systemCAs = []string{"/etc/ssl/certs", "/etc/pki/tls/certs"}
)

// reading is a variable, or a file of the system, and the directories to read for it: none if its value is no path.
type reading struct {
	name string
	dirs []string
	// relative: the value may be a credential that was pasted, so none of it is shown.
	relative bool
}

func (r reading) shown(dir string) string {
	if r.relative {
		return "a directory by a relative path"
	}
	return dir
}

// isPath reports whether value can be a path, and not a key or certificate that was pasted where its path belongs.
func isPath(value string) bool {
	return !strings.ContainsFunc(value, unicode.IsControl) && !strings.Contains(value, "-----BEGIN")
}

// readings returns all that the configuration names files by, in an order that is always the same.
func readings(v variables, get func(string) string) []reading {
	var all []reading
	add := func(name, path string, dirsOf func(string) []string) {
		switch {
		case path == "":
		case isPath(path):
			all = append(all, reading{name, dirsOf(path), !filepath.IsAbs(path)})
		default:
			all = append(all, reading{name: name})
		}
	}
	add("/etc/resolv.conf", "/etc/resolv.conf", confine.OfFile)
	for _, file := range systemFiles {
		if _, err := os.Stat(file); err == nil {
			add(file, file, confine.OfFile)
		}
	}
	for _, dir := range systemCAs {
		add(dir, dir, confine.OfDirectory)
	}
	for _, name := range []string{"VAULT_CACERT", "VAULT_CLIENT_CERT", "VAULT_CLIENT_KEY", "SSL_CERT_FILE"} {
		add(name, get(name), confine.OfFile)
	}
	add("VAULT_CAPATH", get("VAULT_CAPATH"), confine.OfDirectory)
	for _, dir := range filepath.SplitList(get("SSL_CERT_DIR")) {
		add("SSL_CERT_DIR", dir, confine.OfDirectory)
	}
	for _, c := range credentials(v, get) {
		if filepath.IsAbs(c.file) { // else it is a problem already
			add(c.name, c.file, confine.OfFile)
		}
	}
	return all
}

// credential is a file that the method of logging in reads, and the variable that names it.
type credential struct{ name, file string }

func credentials(v variables, get func(string) string) []credential {
	switch vault.Method(v.Auth) {
	case vault.Token:
		if v.TokenFile == "" && get("VAULT_TOKEN") != "" {
			return nil
		}
		return []credential{{"AGENT_TOKEN_FILE", cmp.Or(v.TokenFile, filepath.Join(get("HOME"), ".vault-token"))}}
	case vault.AppRole:
		return []credential{{"AGENT_ROLE_ID_FILE", v.RoleIDFile}, {"AGENT_SECRET_ID_FILE", v.SecretIDFile}}
	case vault.Kubernetes, vault.JWT:
		return []credential{{"AGENT_JWT_FILE", v.JWTFile}}
	}
	return nil
}

// connect returns the ports that may be connected to. gemini is where Gemini is asked, if it ever is.
func (p *problems) connect(v variables, gemini string, get func(string) string) []uint16 {
	named := p.ports("AGENT_CONNECT_PORTS", v.ConnectPorts)
	ports := append(named, 53)
	vaultAddr := cmp.Or(get("VAULT_ADDR"), "https://127.0.0.1:8200")
	for _, address := range []string{vaultAddr, get("VAULT_AGENT_ADDR"), get("VAULT_PROXY_ADDR"), get("VAULT_HTTP_PROXY"),
		get("HTTPS_PROXY"), get("HTTP_PROXY"), get("https_proxy"), get("http_proxy"), gemini} {
		if port, ok := portOf(address); ok {
			ports = append(ports, port)
		}
	}
	if srv, _ := strconv.ParseBool(get("VAULT_SRV_LOOKUP")); srv && len(named) == 0 && v.Confine != confineOff {
		p.note("VAULT_SRV_LOOKUP", "the ports that it finds can't be known beforehand: name them in AGENT_CONNECT_PORTS, or a confined agent may not connect to them")
	}
	return ports
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
	usual := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}
	n, err := strconv.ParseUint(cmp.Or(u.Port(), usual[u.Scheme]), 10, 16)
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
