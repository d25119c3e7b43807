package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"
)

// projected is a directory of files that are all replaced at once, by a rename of a link, as the kubelet does it.
type projected struct {
	t     *testing.T
	dir   string
	round int
}

func project(t *testing.T, files map[string]string) *projected {
	t.Helper()
	p := &projected{t: t, dir: memory(t)}
	p.replace(files)
	for name := range files {
		if err := os.Symlink(filepath.Join("..data", name), p.path(name)); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

func (p *projected) path(name string) string { return filepath.Join(p.dir, name) }

// replace puts other files in the place of all, and removes the directory that held the old ones.
func (p *projected) replace(files map[string]string) {
	p.t.Helper()
	old, _ := os.Readlink(p.path("..data"))
	p.round++
	next := fmt.Sprintf("..round_%d", p.round)
	mkdir(p.t, p.path(next), 0o755)
	for name, content := range files {
		rewrite(p.t, filepath.Join(p.dir, next, name), content)
	}
	if err := os.Symlink(next, p.path("..data_tmp")); err != nil {
		p.t.Fatal(err)
	}
	if err := os.Rename(p.path("..data_tmp"), p.path("..data")); err != nil {
		p.t.Fatal(err)
	}
	if old != "" {
		if err := os.RemoveAll(p.path(old)); err != nil {
			p.t.Fatal(err)
		}
	}
}

// withEnviron gives a command more variables.
func withEnviron(environ ...string) func(*exec.Cmd) {
	return func(c *exec.Cmd) { c.Env = append(c.Env, environ...) }
}

// confined starts the agent so that it refuses to run where anything of its confinement is missing.
func (w *world) confined(environ ...string) {
	w.t.Helper()
	w.startAgent(withEnviron(append([]string{"AGENT_CONFINE=require", "AGENT_POLL_INTERVAL=200ms"}, environ...)...))
}

// follows checks that another key reaches the file.
func (w *world) follows(when string) {
	w.t.Helper()
	w.rotate()
	eventually(w.t, "the file follows "+when, func() bool { return holds(w.path(), w.current) })
}

func TestAConfinedAgentTakesUpCredentialsThatWereReplaced(t *testing.T) {
	w := newWorld(t, setting{appRole: true})
	read := func(path string) string { return string(must[[]byte](t)(os.ReadFile(path))) }
	credentials := project(t, map[string]string{"role-id": read(w.roleID), "secret-id": read(w.secretID)})
	w.confined("AGENT_ROLE_ID_FILE="+credentials.path("role-id"), "AGENT_SECRET_ID_FILE="+credentials.path("secret-id"))
	w.agent.ready(t)

	write(t, w.vault, w.role+"/secret-id/destroy", map[string]any{"secret_id": read(w.secretID)})
	w.newSecretID()
	credentials.replace(map[string]string{"role-id": read(w.roleID), "secret-id": read(w.secretID)})
	w.logOut()
	w.follows("a login with what the links lead to by then")
	if n := w.agent.count(func(l logged) bool { return l.Msg == "logged in to Vault" }); n != 2 {
		t.Errorf("%d logins, want 2", n)
	}
	w.agent.assertProcessMetrics(t)
}

func TestAConfinedAgentTakesUpAWebTokenThatWasReplaced(t *testing.T) {
	w := newWorld(t, setting{})
	newToken := func() (mount, token string, environ []string) {
		environ = byJWT(t, w.vault, w.policy)
		_, mount, _ = strings.Cut(environ[1], "=")
		_, path, _ := strings.Cut(environ[3], "=")
		token = string(must[[]byte](t)(os.ReadFile(path)))
		w.secrets = append(w.secrets, token)
		return mount, token, environ
	}
	mount, token, environ := newToken()
	credentials := project(t, map[string]string{"token": token})
	w.mount = mount
	w.confined(append(environ, "AGENT_JWT_FILE="+credentials.path("token"))...)
	w.agent.ready(t)

	// From now on the mount knows the next token's key alone.
	other, token, _ := newToken()
	keys := must[*api.Secret](t)(w.vault.Client().Logical().Read("auth/" + other + "/config")).Data["jwt_validation_pubkeys"]
	write(t, w.vault, "auth/"+mount+"/config", map[string]any{"jwt_validation_pubkeys": keys})
	w.logOut()
	w.agent.failures(t, "unauthenticated", 1)
	credentials.replace(map[string]string{"token": token})
	w.follows("a login with the token that the link leads to by then")
}

func TestAConfinedAgentTakesUpAnAuthorityThatWasReplaced(t *testing.T) {
	w := newWorld(t, setting{})
	certificate, authority := newAuthority(t)
	var current atomic.Pointer[tls.Certificate]
	current.Store(certificate)
	server := httptest.NewUnstartedServer(w.front)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		return &tls.Config{Certificates: []tls.Certificate{*current.Load()}}, nil
	}}
	server.StartTLS()
	t.Cleanup(server.Close)
	files := project(t, map[string]string{"ca.pem": authority})
	w.reach = []string{"VAULT_ADDR=" + server.URL, "VAULT_CACERT=" + files.path("ca.pem")}
	w.confined()
	w.agent.ready(t)

	certificate, authority = newAuthority(t)
	current.Store(certificate)
	server.CloseClientConnections()
	eventually(t, "the new certificate is refused", func() bool { up, _ := w.agent.metric(t, "keyturn_agent_store_up", ""); return up == 0 })
	files.replace(map[string]string{"ca.pem": authority})
	w.follows("an authority that was replaced")
}

// newAuthority returns a certificate for 127.0.0.1 that nobody signed but itself, and the file to know it by.
func newAuthority(t *testing.T) (*tls.Certificate, string) {
	t.Helper()
	key := must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: unique()},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, inPEM("CERTIFICATE", der)
}

// A standby sends its clients to the active node, whose port the agent can't know beforehand.
func TestAConfinedAgentFollowsARedirectToAPortThatIsNamed(t *testing.T) {
	w := newWorld(t, setting{})
	standby := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		http.Redirect(rw, r, w.vault.Addr+r.RequestURI, http.StatusTemporaryRedirect)
	}))
	t.Cleanup(standby.Close)
	w.reach = []string{"VAULT_ADDR=" + standby.URL}
	_, port, _ := strings.Cut(w.vault.Listen, ":")
	w.confined("AGENT_CONNECT_PORTS=" + port)
	w.agent.ready(t)
	w.follows("a redirect")
	w.end(w.agent.process)

	w.confined()
	w.agent.failures(t, "unavailable", 2)
	kept := w.current
	w.rotate()
	w.agent.failures(t, "unavailable", 2)
	if !holds(w.path(), kept) {
		t.Error("a redirect to a port that isn't named was followed")
	}
}

func TestAConfinedAgentHoldsNoPowerThatItDoesNotNeed(t *testing.T) {
	w := newWorld(t, setting{})
	w.confined()
	w.agent.ready(t)
	w.agent.assertPowerless(t)
	limits := string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/limits", w.agent.cmd.Process.Pid))))
	for line := range strings.Lines(limits) {
		if fields := strings.Fields(line); strings.HasPrefix(line, "Max core file size") && (fields[4] != "0" || fields[5] != "0") {
			t.Errorf("a core file may be left: %s", line)
		}
	}
}

// assertPowerless checks that the agent holds no capability and can't gain any.
func (p *process) assertPowerless(t *testing.T) {
	t.Helper()
	status := string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))))
	for _, line := range []string{"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000", "CapAmb:\t0000000000000000", "NoNewPrivs:\t1"} {
		if !strings.Contains(status, line+"\n") {
			t.Errorf("%q isn't so:\n%s", line, status)
		}
	}
}

// assertProcessMetrics checks that the agent may still look at itself.
func (a *agent) assertProcessMetrics(t *testing.T) {
	t.Helper()
	for _, name := range []string{"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_start_time_seconds"} {
		if value, found := a.metric(t, name, ""); !found || value <= 0 {
			t.Errorf("%s is %v (there: %v)", name, value, found)
		}
	}
}

// Who isn't root owns nothing of /proc/self once it is undumpable, and reads it all the same.
func TestAConfinedAgentOfAnyUserKeepsItsProcessMetrics(t *testing.T) {
	w := newWorld(t, setting{uid: stranger})
	w.confined()
	w.agent.ready(t)
	w.agent.assertProcessMetrics(t)
	w.follows("a rotation, as another user")
}
