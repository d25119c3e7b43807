// Package tools provides the programs that a cluster consists of: some are built from source, others come in Debian
// packages. All of them are kept in the user's cache directory.
package tools

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// kubernetes is the module whose programs are built; go.mod names its version.
const kubernetes = "k8s.io/kubernetes"

// sources are the packages to build, by the name of the program.
var sources = map[string]string{
	"kube-apiserver":          kubernetes + "/cmd/kube-apiserver",
	"kube-controller-manager": kubernetes + "/cmd/kube-controller-manager",
	"kube-scheduler":          kubernetes + "/cmd/kube-scheduler",
	"kubectl":                 kubernetes + "/cmd/kubectl",
	"kubelet":                 kubernetes + "/cmd/kubelet",
	"pause":                   "github.com/keyturn/keyturn/examples/devcluster/pause",
}

// Set is the programs. Several processes may use one directory at the same time.
type Set struct {
	// Dir holds the programs that Build makes.
	Dir string

	cache    string
	version  string
	progress io.Writer
}

// New finds the place of the programs. It must run in this module's directory. What the set does is told to progress.
func New(progress io.Writer) (*Set, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("there is no place for the programs: %w", err)
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}}", kubernetes).Output()
	if err != nil {
		return nil, fmt.Errorf("find the version of Kubernetes in go.mod (run this in its directory): %w", err)
	}
	s := &Set{cache: filepath.Join(cache, "keyturn"), version: strings.TrimSpace(string(out)), progress: progress}
	s.Dir = filepath.Join(s.cache, fmt.Sprintf("kubernetes-%s-%s", s.version, runtime.GOARCH))
	return s, os.MkdirAll(s.cache, 0o700)
}

// Build makes the programs that are missing.
func (s *Set) Build(ctx context.Context) error {
	return s.make(ctx, s.Dir, "building Kubernetes "+s.version+" from source; that takes some minutes, once", s.compile)
}

func (s *Set) compile(ctx context.Context, into string) error {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags", s.stamps(), "-o", into + "/"}
	for _, source := range sources {
		args = append(args, source)
	}
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	return run(ctx, cmd)
}

// stamps are the linker's flags: without them the programs call themselves v0.0.0, and kubelet and kubectl object.
func (s *Set) stamps() string {
	version := strings.SplitN(strings.TrimPrefix(s.version, "v"), ".", 3)
	const at = "k8s.io/component-base/version."
	return fmt.Sprintf("-s -w -X %sgitVersion=%s -X %sgitMajor=%s -X %sgitMinor=%s", at, s.version, at, version[0], at, version[1])
}

// make makes the directory dir, whole or not at all, unless it is there. Of those who want it at once, one makes it.
func (s *Set) make(ctx context.Context, dir, what string, fill func(ctx context.Context, into string) error) error {
	if _, err := os.Stat(dir); err == nil {
		return nil
	}
	unlock, err := lock(ctx, dir+".lock")
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(dir); err == nil { // whoever held the lock has made it
		return nil
	}
	temporary := dir + ".tmp"
	if err := os.RemoveAll(temporary); err != nil { // what a run that was killed left
		return err
	}
	defer os.RemoveAll(temporary)
	if err := os.Mkdir(temporary, 0o755); err != nil {
		return err
	}
	began := time.Now()
	fmt.Fprintln(s.progress, what)
	if err := fill(ctx, temporary); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	fmt.Fprintf(s.progress, "done in %v\n", time.Since(began).Round(time.Second))
	return os.Rename(temporary, dir)
}

// lock waits until no other process holds the lock at path. The kernel takes it from one that is killed.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		}
	}
}

// run runs cmd with all that it starts. When ctx ends they are all ended; an error has the last that was printed.
func run(ctx context.Context, cmd *exec.Cmd) error {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
	err := cmd.Wait()
	if !stop() {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", filepath.Base(cmd.Path), err, bytes.TrimSpace(tail(out.Bytes())))
	}
	return nil
}

func tail(b []byte) []byte { return b[max(0, len(b)-2000):] }
