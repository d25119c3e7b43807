//go:build compose

package compose

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

// The images that the stack is built from. Where no registry can be reached they are made from what the machine has:
// the Go toolchain with the modules of this one, and the Vault that the tests use with the entrypoint of its own image.
const (
	golangImage = "golang:1.26"
	vaultImage  = "hashicorp/vault:1.21.1"
)

// bases returns the settings that name the base images to the Dockerfiles and to docker-compose.yml.
var bases = sync.OnceValues(func() ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	defer cancel()
	golang, err := shared.engine.base(ctx, golangImage, golangArchive)
	if err != nil {
		return nil, err
	}
	vault, err := shared.engine.base(ctx, vaultImage, vaultArchive)
	if err != nil {
		return nil, err
	}
	return []string{"GOLANG_IMAGE=" + golang, "VAULT_IMAGE=" + vault}, nil
})

func theBases(t *testing.T) []string {
	t.Helper()
	settings, err := bases()
	if err != nil {
		t.Fatal(err)
	}
	return settings
}

// standInFor is what an image made here is called: nobody takes it for the real one, or for one with other modules in it.
func standInFor(name string) (string, error) {
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	digest := sha256.Sum256(append(sums, runtime.Version()...))
	return fmt.Sprintf("keyturn-test/%s-%x", name, digest[:4]), err
}

// archive writes an image's files and returns what else it says of itself, in the words of a Dockerfile.
type archive func(ctx context.Context, a *files) ([]string, error)

// base returns an image that serves as name: itself if it is there or can be had, else one that is made here.
func (e *engine) base(ctx context.Context, name string, make archive) (string, error) {
	standIn, err := standInFor(name)
	if err != nil {
		return "", err
	}
	for _, there := range []string{name, standIn} {
		if _, err := e.run(ctx, nil, "docker", "image", "inspect", there); err == nil {
			return there, nil
		}
	}
	bounded, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	if _, err := e.run(bounded, nil, "docker", "pull", "-q", name); err == nil {
		return name, nil
	}
	return standIn, e.importImage(ctx, standIn, make)
}

// importImage makes an image of one layer.
func (e *engine) importImage(ctx context.Context, name string, make archive) error {
	scratch, err := os.CreateTemp("", "keyturn-image-")
	if err != nil {
		return err
	}
	defer os.Remove(scratch.Name())
	defer scratch.Close()
	a := newFiles(scratch)
	changes, err := make(ctx, a)
	if err := errors.Join(err, a.close()); err != nil {
		return fmt.Errorf("make %s: %w", name, err)
	}
	args := []string{"import"}
	for _, change := range changes {
		args = append(args, "-c", change)
	}
	_, err = e.run(ctx, nil, "docker", append(args, scratch.Name(), name)...)
	return err
}

// addBusybox adds a shell and the usual tools, and the authorities that vouch for certificates.
func addBusybox(ctx context.Context, a *files) error {
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return fmt.Errorf("a static busybox is needed: install busybox-static: %w", err)
	}
	applets, err := exec.CommandContext(ctx, busybox, "--list").Output()
	if err != nil {
		return err
	}
	a.directory("tmp", 0o1777, 0, 0)
	a.file(busybox, "bin/busybox", 0, 0)
	for applet := range strings.FieldsSeq(string(applets)) {
		if applet != "busybox" {
			a.link("/bin/busybox", "bin/"+applet)
		}
	}
	a.file("/etc/ssl/certs/ca-certificates.crt", "etc/ssl/certs/ca-certificates.crt", 0, 0)
	return nil
}

func golangArchive(ctx context.Context, a *files) ([]string, error) {
	if err := addBusybox(ctx, a); err != nil {
		return nil, err
	}
	goroot, err := goCommand(ctx, root, "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	for _, part := range []string{"VERSION", "go.env", "bin", "lib", "pkg/include", "pkg/tool", "src"} {
		a.tree(filepath.Join(goroot, part), filepath.Join("usr/local/go", part))
	}
	if err := addModules(ctx, a); err != nil {
		return nil, err
	}
	return []string{"ENV PATH=/usr/local/go/bin:/bin", "ENV GOPATH=/go", "ENV GOTOOLCHAIN=local",
		"ENV GOPROXY=file:///goproxy", "ENV GOSUMDB=off", "WORKDIR /go"}, nil
}

// addModules adds what go.sum names, as far as this machine has it, in the layout of a module proxy.
func addModules(ctx context.Context, a *files) error {
	if _, err := goCommand(ctx, root, "mod", "download"); err != nil {
		return err
	}
	cache, err := goCommand(ctx, root, "env", "GOMODCACHE")
	if err != nil {
		return err
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for line := range strings.Lines(string(sums)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		version := strings.TrimSuffix(fields[1], "/go.mod")
		module := filepath.Join(escape(fields[0]), "@v", escape(version))
		for _, kind := range []string{".mod", ".info", ".zip"} {
			source := filepath.Join(cache, "cache/download", module+kind)
			if _, err := os.Stat(source); err != nil || seen[source] {
				continue
			}
			seen[source] = true
			a.file(source, filepath.Join("goproxy", module+kind), 0, 0)
		}
	}
	return nil
}

// escape writes a module's path or version as proxies do: an upper-case letter becomes ! and the lower-case one.
func escape(path string) string {
	var b strings.Builder
	for _, r := range path {
		if unicode.IsUpper(r) {
			b.WriteByte('!')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// vaultUser is the uid and gid of the user vault in Vault's own image.
const vaultUID, vaultGID = 100, 1000

func vaultArchive(ctx context.Context, a *files) ([]string, error) {
	if err := addBusybox(ctx, a); err != nil {
		return nil, err
	}
	binary, err := vaulttest.Binary(ctx, os.Stderr)
	if err != nil {
		return nil, err
	}
	a.file(binary, "bin/vault", 0, 0)
	libraries, _ := exec.CommandContext(ctx, "ldd", binary).Output() // fails for a static one, which needs none
	for _, library := range regexp.MustCompile(`/\S+\.so\S*`).FindAllString(string(libraries), -1) {
		a.file(library, strings.TrimPrefix(library, "/"), 0, 0)
	}
	entrypoint, err := vaultEntrypoint(ctx)
	if err != nil {
		return nil, err
	}
	a.bytes(entrypoint, "usr/local/bin/docker-entrypoint.sh", 0o755)
	a.bytes([]byte("root:x:0:0::/root:/bin/sh\nvault:x:100:1000::/home/vault:/sbin/nologin\n"), "etc/passwd", 0o644)
	a.bytes([]byte("root:x:0:\nvault:x:1000:\n"), "etc/group", 0o644)
	for _, dir := range []string{"vault", "vault/config", "vault/file", "vault/logs", "home/vault"} {
		a.directory(dir, 0o755, vaultUID, vaultGID)
	}
	return []string{"ENV PATH=/usr/local/bin:/bin", "VOLUME /vault/logs", "VOLUME /vault/file", "EXPOSE 8200",
		`ENTRYPOINT ["docker-entrypoint.sh"]`, `CMD ["server","-dev"]`}, nil
}

// vaultEntrypoint returns the script that Vault's own image starts with, but for dumb-init, which passes signals on.
func vaultEntrypoint(ctx context.Context) ([]byte, error) {
	devvault := filepath.Join(root, "examples/devvault")
	out, err := goCommand(ctx, devvault, "mod", "download", "-json", "github.com/hashicorp/vault")
	if err != nil {
		return nil, err
	}
	var module struct{ Dir string }
	if err := json.Unmarshal([]byte(out), &module); err != nil {
		return nil, err
	}
	script, err := os.ReadFile(filepath.Join(module.Dir, ".release/docker/docker-entrypoint.sh"))
	return bytes.Replace(script, []byte("#!/usr/bin/dumb-init /bin/sh"), []byte("#!/bin/sh"), 1), err
}

func goCommand(ctx context.Context, dir string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Stderr = io.Discard
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("go %s: %w", strings.Join(args, " "), err)
	}
	return strings.TrimSpace(string(out)), nil
}
