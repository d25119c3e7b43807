//go:build compose

// Package compose tests docker-compose.yml and the Dockerfiles against a real Docker engine.
package compose

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// root is the repository's; tests run in the directory of their package.
const root = "../.."

// engine is a Docker engine and the environment that its clients need.
type engine struct{ environ []string }

var shared struct {
	engine *engine
	why    error // why there is none
}

func TestMain(m *testing.M) {
	runtime.LockOSThread() // an engine that this thread starts ends with it, so with the process, if all else fails
	os.Exit(run(m))
}

func run(m *testing.M) int {
	e, stop, err := findEngine(context.Background())
	shared.engine, shared.why = e, err
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop the Docker engine:", err)
		return 1
	}
	return code
}

// ci says that what can't be tested is a failure.
func ci() bool { return os.Getenv("CI") == "true" }

// theEngine returns the engine that all tests share. Without one the test is skipped, or fails if CI is "true".
func theEngine(t *testing.T) *engine {
	t.Helper()
	switch {
	case shared.why == nil:
		return shared.engine
	case ci():
		t.Fatalf("no Docker engine to test against: %v", shared.why)
	default:
		t.Skipf("NOT TESTED, there is no Docker engine: start one (%v)", shared.why)
	}
	return nil
}

// findEngine returns the engine that the docker command speaks to. If CI is "true" and there is none it installs and
// starts one; stop ends that, and with it all that it holds.
func findEngine(ctx context.Context) (*engine, func() error, error) {
	nothing := func() error { return nil }
	e := &engine{environ: os.Environ()}
	if _, err := e.run(ctx, nil, "docker", "info"); err == nil || !ci() {
		return e, nothing, err
	}
	if err := install(ctx); err != nil {
		return nil, nothing, err
	}
	dir, err := os.MkdirTemp("", "keyturn-engine-")
	if err != nil {
		return nil, nothing, err
	}
	e, stop, err := startEngine(ctx, dir)
	if err != nil {
		return nil, nothing, errors.Join(err, os.RemoveAll(dir))
	}
	return e, func() error { return errors.Join(stop(), os.RemoveAll(dir)) }, nil
}

func install(ctx context.Context) error {
	present := func(name string) bool { _, err := exec.LookPath(name); return err == nil }
	if present("dockerd") && present("docker-compose") && present("busybox") {
		return nil
	}
	for _, args := range [][]string{
		{"update", "-qq"},
		{"install", "-y", "-qq", "--no-install-recommends", "docker.io", "docker-compose", "busybox-static", "iptables", "ca-certificates"},
	} {
		cmd := exec.CommandContext(ctx, "apt-get", args...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("apt-get %s: %w\n%s", args[0], err, out)
		}
	}
	return nil
}

// startTimeout bounds how long dockerd may take to answer.
const startTimeout = time.Minute

func startEngine(ctx context.Context, dir string) (*engine, func() error, error) {
	socket := "unix://" + filepath.Join(dir, "docker.sock")
	e := &engine{environ: append(os.Environ(), "DOCKER_HOST="+socket)}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, nil, err
	}
	defer log.Close()
	cmd := exec.Command("dockerd", "--host", socket, "--data-root", filepath.Join(dir, "data"),
		"--exec-root", filepath.Join(dir, "exec"), "--pidfile", filepath.Join(dir, "pid"))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop := func() error {
		cmd.Process.Signal(syscall.SIGTERM)
		return <-ended
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	for tick := time.NewTicker(100 * time.Millisecond); ; {
		_, err := e.run(ctx, nil, "docker", "info")
		if err == nil {
			return e, stop, nil
		}
		select {
		case <-tick.C:
			continue
		case err = <-ended:
		case <-ctx.Done():
			err = errors.Join(err, stop())
		}
		said, _ := os.ReadFile(log.Name())
		return nil, nil, fmt.Errorf("dockerd doesn't start: %w\n%s", err, tail(said))
	}
}

// tail returns the last lines of a log, for an error.
func tail(log []byte) []byte {
	const enough = 4 << 10
	return log[max(0, len(log)-enough):]
}

// run runs a command with the engine's environment and more, in the repository's root, and returns what it printed to
// standard output.
func (e *engine) run(ctx context.Context, more []string, name string, args ...string) (string, error) {
	return e.runWith(ctx, more, "", name, args...)
}

// runWith is run with a standard input.
func (e *engine) runWith(ctx context.Context, more []string, input, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = root
	cmd.Env = append(e.environ[:len(e.environ):len(e.environ)], more...)
	cmd.Stdin = strings.NewReader(input)
	cmd.WaitDelay = 5 * time.Second // a grandchild may hold the pipes
	var out, problems bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &problems
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args, " "), err, tail(problems.Bytes()))
	}
	return strings.TrimSpace(out.String()), nil
}

// docker runs the docker command and ends the test if it fails.
func (e *engine) docker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := e.run(t.Context(), nil, "docker", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
