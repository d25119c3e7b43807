package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
)

// ours are the programs of this repository. Each is built when a test first asks for it, once a test run.
var ours = &programs{built: map[string]string{}}

type programs struct {
	mu    sync.Mutex
	dir   string
	built map[string]string
}

// build returns the path of the program whose main package is half, agent or app. It is stripped and static, as the one
// that ships, unless the tests run with the race detector.
func (p *programs) build(t testing.TB, half string) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if path := p.built[half]; path != "" {
		return path
	}
	if p.dir == "" {
		p.dir = must[string](t)(os.MkdirTemp("", "keyturn-e2e-"))
		if err := os.Chmod(p.dir, 0o755); err != nil { // other users run them too
			t.Fatal(err)
		}
	}
	path := filepath.Join(p.dir, "keyturn-"+half)
	args, cgo := []string{"build", "-trimpath", "-ldflags", "-s -w -X main.version=v0.0.0-e2e", "-o", path}, "0"
	if raceEnabled {
		args, cgo = append(args, "-race"), "1"
	}
	cmd := exec.Command("go", append(args, "github.com/keyturn/keyturn/"+half)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", half, err, out)
	}
	p.built[half] = path
	return path
}

func (p *programs) remove() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dir == "" {
		return nil
	}
	if err := os.RemoveAll(p.dir); err != nil {
		return fmt.Errorf("remove the binaries: %w", err)
	}
	return nil
}
