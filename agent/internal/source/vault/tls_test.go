package vault

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

// authority signs certificates for one test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  string
}

func newAuthority(t testing.TB) *authority {
	a := &authority{t: t}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: unique()}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	a.key = must[*ecdsa.PrivateKey](t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must[[]byte](t)(x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key))
	a.cert = must[*x509.Certificate](t)(x509.ParseCertificate(der))
	a.pem = string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
	return a
}

// issue returns a certificate and its key as PEM, for 127.0.0.1 and for a client of that name.
func (a *authority) issue(name string, ends time.Time) (cert, key string) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: ends,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	private := must[*ecdsa.PrivateKey](a.t)(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	der := must[[]byte](a.t)(x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key))
	keyDER := must[[]byte](a.t)(x509.MarshalECPrivateKey(private))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}))
}

// tlsFront stands before Vault with a certificate that can be exchanged, which breaks all connections.
type tlsFront struct {
	*httptest.Server
	cert atomic.Pointer[tls.Certificate]
}

func newTLSFront(t *testing.T, v *vaulttest.Server, clients *authority) *tlsFront {
	p := startProxy(t, v.Addr)
	f := &tlsFront{}
	f.Server = httptest.NewUnstartedServer(p)
	f.Config.ErrorLog = log.New(io.Discard, "", 0) // refused handshakes are what the tests are about
	f.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := &tls.Config{Certificates: []tls.Certificate{*f.cert.Load()}}
		if clients != nil {
			c.ClientAuth, c.ClientCAs = tls.RequireAndVerifyClientCert, x509.NewCertPool()
			c.ClientCAs.AddCert(clients.cert)
		}
		return c, nil
	}}
	return f
}

func (f *tlsFront) use(t testing.TB, a *authority, ends time.Time) {
	cert, key := a.issue("vault", ends)
	pair := must[tls.Certificate](t)(tls.X509KeyPair([]byte(cert), []byte(key)))
	f.cert.Store(&pair)
	if f.URL == "" {
		f.StartTLS()
		t.Cleanup(f.Close)
	}
	f.CloseClientConnections()
}

func TestARotatedAuthorityTakesEffectWithoutARestart(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	token := newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}})
	front, first, second := newTLSFront(t, v, nil), newAuthority(t), newAuthority(t)
	later := time.Now().Add(time.Hour)
	front.use(t, first, later)
	ca := file(t, first.pem)
	t.Setenv("VAULT_CACERT", ca)
	t.Setenv("VAULT_ADDR", front.URL)
	s := open(t, Config{Auth: Token, Token: token})
	expect(t, s, path, "one")
	session := s.current.Load()

	front.use(t, second, later)
	if e := checkKind(t, s, path, source.Unavailable); !strings.Contains(e.Reason, "VAULT_CACERT") {
		t.Errorf("%q", e.Reason)
	}
	rewrite(t, ca, "half a fi")
	checkKind(t, s, path, source.Unavailable)
	checkKind(t, s, path, source.Unavailable)
	rewrite(t, ca, second.pem)
	checkKind(t, s, path, source.Unavailable) // this failure builds the client that the next read uses
	expect(t, s, path, "one")
	if s.current.Load() != session {
		t.Error("a new certificate cost a login")
	}
}

// While the files hold nothing that works, each read tries them again. That is one line of the log each time it begins.
func TestCertificatesThatCanNotBeMendedAreOneLineOfTheLog(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	token := newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}})
	front, a := newTLSFront(t, v, nil), newAuthority(t)
	later := time.Now().Add(time.Hour)
	front.use(t, a, later)
	ca := file(t, a.pem)
	t.Setenv("VAULT_CACERT", ca)
	t.Setenv("VAULT_ADDR", front.URL)
	s, log := openLogged(t, Config{Auth: Token, Token: token})
	expect(t, s, path, "one")
	for times := 1; times <= 2; times++ {
		front.use(t, newAuthority(t), later)
		rewrite(t, ca, "half a fi")
		for range 5 {
			checkKind(t, s, path, source.Unavailable)
		}
		if n := log.count("can't be made anew"); n != times {
			t.Errorf("after %d times of five reads each the log has %d lines", times, n)
		}
		front.use(t, a, later)
		expect(t, s, path, "one")
	}
}

func TestAnExpiredCertificateOfVaultSaysSo(t *testing.T) {
	v := realVault(t)
	front, a := newTLSFront(t, v, nil), newAuthority(t)
	front.use(t, a, time.Now().Add(-time.Minute))
	t.Setenv("VAULT_CACERT", file(t, a.pem))
	t.Setenv("VAULT_ADDR", front.URL)
	s := open(t, Config{Auth: Token, Token: "x"})
	if e := checkKind(t, s, "x/y", source.Unavailable); !strings.Contains(e.Reason, "has expired") {
		t.Errorf("%q", e.Reason)
	}
	front.use(t, a, time.Now().Add(time.Hour))
	t.Setenv("VAULT_TLS_SERVER_NAME", "elsewhere")
	if e := checkKind(t, s, "x/y", source.Unavailable); !strings.Contains(e.Reason, "another host") {
		t.Errorf("%q", e.Reason)
	}
}

func TestARotatedClientCertificateTakesEffectWithoutARestart(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	token := newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}})
	clients, a := newAuthority(t), newAuthority(t)
	front := newTLSFront(t, v, clients)
	front.use(t, a, time.Now().Add(time.Hour))
	cert, key := clients.issue("agent", time.Now().Add(-time.Minute))
	certFile, keyFile := file(t, cert), file(t, key)
	t.Setenv("VAULT_CACERT", file(t, a.pem))
	t.Setenv("VAULT_CLIENT_CERT", certFile)
	t.Setenv("VAULT_CLIENT_KEY", keyFile)
	t.Setenv("VAULT_ADDR", front.URL)
	s := open(t, Config{Auth: Token, Token: token})
	if e := checkKind(t, s, path, source.Unavailable); !strings.Contains(e.Reason, "VAULT_CLIENT_CERT") {
		t.Errorf("%q", e.Reason)
	}
	cert, key = clients.issue("agent", time.Now().Add(time.Hour))
	rewrite(t, certFile, cert)
	rewrite(t, keyFile, key)
	expect(t, s, path, "one")
}

func TestHTTPAndHTTPSMixedUpSaysSo(t *testing.T) {
	v := realVault(t)
	front, a := newTLSFront(t, v, nil), newAuthority(t)
	front.use(t, a, time.Now().Add(time.Hour))
	for addr, want := range map[string]string{
		strings.Replace(v.Addr, "http:", "https:", 1):    "speaks no TLS",
		strings.Replace(front.URL, "https:", "http:", 1): "is not Vault",
	} {
		t.Setenv("VAULT_ADDR", addr)
		s := open(t, Config{Auth: Token, Token: "x"})
		if e := checkKind(t, s, "x/y", source.Unavailable); !strings.Contains(e.Reason, want) {
			t.Errorf("%s: %q, want %q", addr, e.Reason, want)
		}
	}
}

func TestLoginByCertificate(t *testing.T) {
	realVault(t) // for the skip
	v := vaulttest.ForTest(t, vaulttest.Options{TLS: true})
	path, policyName := secretFor(t, v)
	clients := newAuthority(t)
	cert, key := clients.issue("agent", time.Now().Add(time.Hour))
	mount := enable(t, v, "cert")
	write(t, v, "auth/"+mount+"/certs/agent", map[string]any{"certificate": clients.pem, "token_policies": policyName})
	t.Setenv("VAULT_ADDR", v.Addr)
	t.Setenv("VAULT_CACERT", v.CACert)
	t.Setenv("VAULT_CLIENT_CERT", file(t, cert))
	t.Setenv("VAULT_CLIENT_KEY", file(t, key))
	expect(t, open(t, Config{Auth: Cert, AuthMount: mount}), path, "one")
	expect(t, open(t, Config{Auth: Cert, AuthMount: mount, AuthRole: "agent"}), path, "one")
	checkRefused(t, open(t, Config{Auth: Cert, AuthMount: mount, AuthRole: "nobody"}), path, "log in at auth/"+mount)

	// The same by a directory of authorities, and by bytes.
	pemBytes := must[[]byte](t)(os.ReadFile(v.CACert))
	dir := t.TempDir()
	rewrite(t, filepath.Join(dir, "ca.pem"), string(pemBytes))
	t.Setenv("VAULT_CACERT", "")
	t.Setenv("VAULT_CAPATH", dir)
	expect(t, open(t, Config{Auth: Cert, AuthMount: mount}), path, "one")
	t.Setenv("VAULT_CAPATH", "")
	t.Setenv("VAULT_CACERT_BYTES", string(pemBytes))
	expect(t, open(t, Config{Auth: Cert, AuthMount: mount}), path, "one")

	stranger, strangerKey := newAuthority(t).issue("agent", time.Now().Add(time.Hour))
	t.Setenv("VAULT_CLIENT_CERT", file(t, stranger))
	t.Setenv("VAULT_CLIENT_KEY", file(t, strangerKey))
	checkRefused(t, open(t, Config{Auth: Cert, AuthMount: mount}), path, "log in at auth/"+mount)
}

func TestAProxyIsUsedAndAMissingOneNamed(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	token := newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}})
	p := startProxy(t, v.Addr)
	t.Setenv("VAULT_ADDR", "http://vault.invalid:8200")
	t.Setenv("VAULT_PROXY_ADDR", p.url())
	s := open(t, Config{Auth: Token, Token: token})
	expect(t, s, path, "one")
	if p.count(http.MethodGet) == 0 {
		t.Error("nothing went through the proxy")
	}
	t.Setenv("VAULT_PROXY_ADDR", "")
	checkKind(t, open(t, Config{Auth: Token, Token: token}), path, source.Unavailable)
}

func TestVaultBehindAUnixSocket(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	token := newToken(t, v, api.TokenCreateRequest{Policies: []string{policyName}})
	front := httptest.NewUnstartedServer(startProxy(t, v.Addr))
	front.Listener.Close()
	front.Listener = must[net.Listener](t)(net.Listen("unix", filepath.Join(t.TempDir(), "vault.sock")))
	front.Start()
	defer front.Close()
	for _, variable := range []string{"VAULT_ADDR", "VAULT_AGENT_ADDR"} {
		t.Setenv("VAULT_ADDR", v.Addr)
		t.Setenv(variable, "unix://"+front.Listener.Addr().String())
		expect(t, open(t, Config{Auth: Token, Token: " " + token + "\n"}), path, "one")
	}
}
