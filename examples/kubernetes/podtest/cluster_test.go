//go:build pod

package podtest

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// cluster is a Kubernetes, ours or the user's.
type cluster struct {
	kubectl string
	config  string // KUBECONFIG
	host    string // this machine's address for pods
	load    []string
	loadDir string
	node    string // /proc/PID of the node's process 1; empty in a cluster that isn't ours
}

// devcluster is the command of examples/devcluster, and has to run in its directory.
func devcluster(ctx context.Context, binary string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Dir, cmd.Stderr = "../../devcluster", os.Stderr
	return cmd
}

// openCluster returns the cluster of KUBECONFIG, or one that ends with the test.
func openCluster(t *testing.T, command string) *cluster {
	if config := os.Getenv("KUBECONFIG"); config != "" {
		c := &cluster{kubectl: "kubectl", config: config, host: os.Getenv("POD_TEST_HOST")}
		if c.load = []string{"sh", "-c", os.Getenv("POD_TEST_LOAD")}; c.host == "" || c.load[2] == "" {
			t.Fatal("KUBECONFIG is set: set POD_TEST_HOST and POD_TEST_LOAD as well, or unset it for a cluster of the test's own")
		}
		return c
	}
	tools := devcluster(t.Context(), command, "tools")
	directory, err := tools.Output()
	if err != nil {
		missing(t, fmt.Errorf("devcluster tools: %w", err))
	}
	config := startOwn(t, command)
	init, err := os.ReadFile(filepath.Join(filepath.Dir(config), "init"))
	if err != nil {
		t.Fatal(err)
	}
	pid, _, _ := strings.Cut(string(init), "\n")
	return &cluster{
		kubectl: filepath.Join(strings.TrimSpace(string(directory)), "kubectl"), config: config, host: "198.18.0.1",
		load: []string{command, "load"}, loadDir: "../../devcluster", node: "/proc/" + pid,
	}
}

// startOwn starts a cluster and returns its KUBECONFIG.
func startOwn(t *testing.T, command string) string {
	cmd := devcluster(context.Background(), command)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	ended := spawn(t, cmd)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		missing(t, errors.Join(errors.New("devcluster starts no cluster here"), <-ended))
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := <-ended; err != nil {
			t.Errorf("stop the cluster: %v", err)
		}
		nothingIsLeft(t, filepath.Dir(strings.TrimSpace(line)))
	})
	return strings.TrimSpace(line)
}

// spawn starts cmd, which is told to end should the test be killed.
func spawn(t *testing.T, cmd *exec.Cmd) (ended <-chan error) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	started, outcome := make(chan error), make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the signal comes when the thread that forked ends
		err := cmd.Start()
		started <- err
		if err == nil {
			outcome <- cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	return outcome
}

func nothingIsLeft(t *testing.T, dir string) {
	left, _ := filepath.Glob("/sys/fs/cgroup/*/keyturn-devcluster")
	for _, path := range append(left, "/sys/fs/cgroup/keyturn-devcluster", "/sys/class/net/keyturn-cluster", dir) {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("the cluster left %s", path)
		}
	}
}

// missing ends a test that has no cluster.
func missing(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("no cluster to test on: %v", err)
	}
	t.Skipf("NOT TESTED, there is no cluster: set KUBECONFIG to one, or run this as root on Debian (%v)", err)
}

// command prepares a command that speaks to the cluster.
func (c *cluster) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.config)
	return cmd
}

// try runs kubectl; its error has what it printed.
func (c *cluster) try(ctx context.Context, args ...string) (string, error) {
	var out, problem bytes.Buffer
	cmd := c.command(ctx, c.kubectl, args...)
	cmd.Stdout, cmd.Stderr = &out, &problem
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("kubectl %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(problem.String()))
	}
	return out.String(), nil
}

// run is try for what has to succeed.
func (c *cluster) run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := c.try(t.Context(), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// get reads an object into the value that into points to.
func (c *cluster) get(ctx context.Context, into any, args ...string) error {
	out, err := c.try(ctx, append(append([]string{"get"}, args...), "-o", "json")...)
	if err != nil {
		return err
	}
	return json.Unmarshal([]byte(out), into)
}

// loadImage loads an archive into the cluster.
func (c *cluster) loadImage(t *testing.T, archive io.Reader) {
	t.Helper()
	cmd := c.command(t.Context(), c.load[0], c.load[1:]...)
	cmd.Dir, cmd.Stdin = c.loadDir, archive
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("load an image: %v: %s", err, out)
	}
}

// eventually calls try until it succeeds.
func eventually(t *testing.T, within time.Duration, what string, try func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := try(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, within, last)
		}
	}
}
