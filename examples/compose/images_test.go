//go:build compose

package compose

import (
	"bytes"
	"context"
	"crypto/sha256"
	"debug/elf"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const mebibyte = 1 << 20

// images are those that ship, with what each may weigh at most, in bytes.
var images = []struct {
	name string
	most int64
}{
	{"agent", 17 * mebibyte},
	{"app", 30 * mebibyte},
}

const testVersion, testCommit = "v0.0.0-test", "0123456789abcdef0123456789abcdef01234567"

// builder is a way to build a Dockerfile.
type builder struct {
	name     string
	docker   string // the command
	buildKit string // the value of DOCKER_BUILDKIT
}

// builders returns the classic builder and BuildKit.
func builders(t *testing.T, e *engine) []builder {
	t.Helper()
	all := []builder{{"classic", "docker", "0"}}
	// A docker command of today needs the plugin buildx for BuildKit; that of an engine before 23 has it within.
	for _, docker := range []string{"docker", "/usr/bin/docker"} {
		_, err := e.runWith(t.Context(), []string{"DOCKER_BUILDKIT=1"}, "FROM scratch\nLABEL a=b\n", docker, "build", "-q", "-")
		if err == nil {
			return append(all, builder{"BuildKit", docker, "1"})
		}
		if ci() && docker != "docker" {
			t.Fatalf("no docker command that builds with BuildKit: %v", err)
		}
	}
	t.Log("NOT TESTED: no docker command here builds with BuildKit")
	return all
}

// build builds an image and returns its id. arch is that of the host if it is empty.
func (b builder) build(t *testing.T, e *engine, image, arch string, extra ...string) string {
	t.Helper()
	id := filepath.Join(t.TempDir(), "id")
	args := []string{"build", "-q", "-f", "Dockerfile." + image, "--iidfile", id, "--build-arg", "VERSION=" + testVersion,
		"--build-arg", "COMMIT=" + testCommit, "--build-arg", theBases(t)[0]}
	if arch != "" {
		args = append(args, "--platform", "linux/"+arch)
	}
	args = append(append(args, extra...), ".")
	if _, err := e.run(t.Context(), []string{"DOCKER_BUILDKIT=" + b.buildKit}, b.docker, args...); err != nil {
		t.Fatal(err)
	}
	built, err := os.ReadFile(id)
	if err != nil {
		t.Fatal(err)
	}
	name := strings.TrimSpace(string(built))
	t.Cleanup(func() { e.run(context.WithoutCancel(t.Context()), nil, "docker", "rmi", name) }) // fails if it has a name
	return name
}

// binary copies the one program of an image out of it.
func (e *engine) binary(t *testing.T, image, id string) []byte {
	t.Helper()
	container := e.docker(t, "create", id)
	t.Cleanup(func() {
		if _, err := e.run(context.WithoutCancel(t.Context()), nil, "docker", "rm", container); err != nil {
			t.Error(err)
		}
	})
	to := filepath.Join(t.TempDir(), "binary")
	e.docker(t, "cp", container+":/keyturn-"+image, to)
	content, err := os.ReadFile(to)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func TestTheImagesAreSmallStaticAndReproducible(t *testing.T) {
	e := theEngine(t)
	for _, image := range images {
		t.Run(image.name, func(t *testing.T) {
			var digests []string
			for _, b := range builders(t, e) {
				id := b.build(t, e, image.name, "")
				inspectImage(t, e, image.name, id, image.most)
				content := e.binary(t, image.name, id)
				checkStatic(t, content, runtime.GOARCH)
				digests = append(digests, fmt.Sprintf("%x", sha256.Sum256(content)))
				t.Logf("%s: %s", b.name, digests[len(digests)-1])
			}
			// The builders share no cache, so that these are builds from scratch of their own.
			if len(slices.Compact(digests)) != 1 {
				t.Errorf("two builds gave two binaries: %v", digests)
			}
		})
	}
}

func inspectImage(t *testing.T, e *engine, image, id string, most int64) {
	t.Helper()
	field := func(format string) string { return e.docker(t, "image", "inspect", "-f", format, id) }
	size, err := strconv.ParseInt(field("{{.Size}}"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("keyturn-%s: %.1f MiB", image, float64(size)/mebibyte)
	if size > most {
		t.Errorf("the image has %d bytes, may have %d", size, most)
	}
	for format, want := range map[string]string{
		"{{.Config.User}}":       "65532:65532",
		"{{.Config.Entrypoint}}": "[/keyturn-" + image + "]",
		`{{index .Config.Labels "org.opencontainers.image.version"}}`:  testVersion,
		`{{index .Config.Labels "org.opencontainers.image.revision"}}`: testCommit,
		`{{index .Config.Labels "org.opencontainers.image.title"}}`:    "keyturn-" + image,
		`{{index .Config.Labels "org.opencontainers.image.licenses"}}`: "Apache-2.0",
	} {
		if got := field(format); got != want {
			t.Errorf("%s is %q, want %q", format, got, want)
		}
	}
	if said := e.docker(t, "run", "--rm", "--network=none", "--read-only", id, "version"); !strings.HasPrefix(said, "keyturn-"+image+" "+testVersion+" "+testCommit) {
		t.Errorf("the version is %q", said)
	}
}

// checkStatic makes sure that a binary is for arch and needs no interpreter.
func checkStatic(t *testing.T, content []byte, arch string) {
	t.Helper()
	file, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}[arch]
	if file.Machine != want {
		t.Errorf("the binary is for %v, want %v", file.Machine, want)
	}
	for _, p := range file.Progs {
		if p.Type == elf.PT_INTERP {
			t.Error("the binary is not static")
		}
	}
}

func TestTheImagesAreBuiltForTheOtherArchitectureToo(t *testing.T) {
	e := theEngine(t)
	other := map[string]string{"amd64": "arm64", "arm64": "amd64"}[runtime.GOARCH]
	for _, b := range builders(t, e) {
		if b.name != "BuildKit" {
			continue // the classic builder knows no target
		}
		for _, image := range images {
			t.Run(image.name, func(t *testing.T) {
				id := b.build(t, e, image.name, other)
				if got := e.docker(t, "image", "inspect", "-f", "{{.Architecture}}", id); got != other {
					t.Errorf("the image says it is for %s", got)
				}
				checkStatic(t, e.binary(t, image.name, id), other)
			})
		}
	}
}
