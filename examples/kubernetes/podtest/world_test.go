//go:build pod

package podtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/examples/porttest"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

// world is a cluster, and what its pods need outside of it.
type world struct {
	*cluster
	vault  *vaulttest.Server
	audit  string // Vault's audit log
	gemini *geminitest.Server
	url    string // of gemini, for pods
	proxy  *url.URL

	programs string // a directory with vault and kubectl
}

// python are the Debian packages of an image with Python and its standard library.
const python = "python3-minimal,python3.11-minimal,libpython3.11-minimal,libpython3.11-stdlib,libc6,libssl3,zlib1g,libexpat1,libbz2-1.0,liblzma5,libffi8,libcrypt1,libuuid1"

// tag is that of the images under test.
const tag = "pod-test"

func open(t *testing.T) *world {
	dir := t.TempDir()
	command := filepath.Join(dir, "devcluster")
	goBuild(t, "../../devcluster", command, ".")
	w := &world{cluster: openCluster(t, command)}
	for _, name := range []string{"agent", "app"} {
		binary := filepath.Join(dir, "keyturn-"+name)
		goBuild(t, "../../..", binary, "./"+name)
		w.addImage(t, command, "keyturn-"+name+":"+tag, binary)
	}
	w.addImage(t, command, "-packages", python, "python:3.13-slim")
	w.startVault(t, dir)
	w.startGemini(t)
	w.startProxy(t)
	return w
}

// goBuild builds as the images' Dockerfiles do.
func goBuild(t *testing.T, dir, to, source string) {
	t.Helper()
	to, err := filepath.Abs(to)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w", "-o", to, source)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", source, err, out)
	}
}

func (w *world) addImage(t *testing.T, command string, args ...string) {
	t.Helper()
	var archive bytes.Buffer
	cmd := devcluster(t.Context(), command, append([]string{"image"}, args...)...)
	cmd.Stdout = &archive
	if err := cmd.Run(); err != nil {
		t.Fatalf("make the image %v: %v", args, err)
	}
	w.loadImage(t, &archive)
}

// startVault starts a Vault that pods reach, and lets them log in as the README has it.
func (w *world) startVault(t *testing.T, dir string) {
	binary, err := vaulttest.Binary(t.Context(), os.Stderr)
	if err != nil {
		vaulttest.Missing(t, err)
	}
	w.vault = vaulttest.ForTest(t, vaulttest.Options{Binary: binary, Listen: porttest.Reserve(t, w.host)})
	w.audit = filepath.Join(dir, "audit.log")
	_, err = w.vault.Client().Logical().WriteWithContext(t.Context(), "sys/audit/file", map[string]any{"type": "file",
		"options": map[string]string{"file_path": w.audit, "hmac_accessor": "false"}})
	if err != nil {
		t.Fatal(err)
	}
	w.programs = filepath.Join(dir, "bin")
	kubectl, err := exec.LookPath(w.kubectl)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(os.Mkdir(w.programs, 0o755),
		os.Symlink(binary, filepath.Join(w.programs, "vault")), os.Symlink(kubectl, filepath.Join(w.programs, "kubectl")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := w.try(context.Background(), "delete", "-f", "../vault/reviewer.yaml", "--ignore-not-found"); err != nil {
			t.Error(err)
		}
	})
	w.setUp(t, "keyturn")
}

// setUp runs the script that lets the pods of a namespace log in, with the vault and the kubectl of the test.
func (w *world) setUp(t *testing.T, namespace string) {
	t.Helper()
	cmd := w.command(t.Context(), "../vault/setup.sh")
	cmd.Env = append(cmd.Env, "PATH="+w.programs+":"+os.Getenv("PATH"), "NAMESPACE="+namespace,
		"VAULT_ADDR="+w.vault.Addr, "VAULT_TOKEN="+w.vault.RootToken)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

func (w *world) startGemini(t *testing.T) {
	l, err := net.Listen("tcp", net.JoinHostPort(w.host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	w.gemini, w.url = geminitest.New(), "http://"+l.Addr().String()
	w.gemini.SetLatency(50 * time.Millisecond) // so that whatever happens, requests are in flight
	server := &http.Server{Handler: w.gemini.Handler(), ReadHeaderTimeout: 10 * time.Second}
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Close()
		<-served
	})
}

// startProxy makes the API server's way to services and pods one of plain HTTP on loopback.
func (w *world) startProxy(t *testing.T) {
	address := porttest.Loopback(t)
	_, port, _ := net.SplitHostPort(address)
	cmd := w.command(context.Background(), w.kubectl, "proxy", "--port="+port)
	ended := spawn(t, cmd)
	t.Cleanup(func() {
		cmd.Process.Kill()
		<-ended
	})
	w.proxy = &url.URL{Scheme: "http", Host: address}
	eventually(t, 20*time.Second, "kubectl proxy", func(ctx context.Context) error {
		_, err := fetch(ctx, w.proxy.JoinPath("healthz").String())
		return err
	})
}

// service returns the URL of a path of a namespace's service, and pod that of a pod's port.
func (w *world) service(namespace, name, path string) string {
	return w.proxy.JoinPath("api/v1/namespaces", namespace, "services", "http:"+name+":http", "proxy", path).String()
}

func (w *world) pod(namespace, name, port, path string) string {
	return w.proxy.JoinPath("api/v1/namespaces", namespace, "pods", "http:"+name+":"+port, "proxy", path).String()
}

// fetch gets a URL, and fails unless it answers 200.
func fetch(ctx context.Context, url string) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	var body strings.Builder
	if _, err := io.Copy(&body, response.Body); err != nil {
		return "", err
	}
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", response.Status, body.String())
	}
	return body.String(), nil
}
