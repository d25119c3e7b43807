package stage

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// build builds the binaries that were not given. They don't go to the stage's directory, since a tmpfs may be mounted noexec.
func (s *Stage) build(ctx context.Context, progress io.Writer) (err error) {
	if s.agent != "" && s.app != "" {
		return nil
	}
	if s.bin, err = os.MkdirTemp("", "keyturn-bin-"); err != nil {
		return err
	}
	for _, b := range []struct {
		path *string
		dir  string
	}{{&s.agent, "agent"}, {&s.app, "app"}} {
		if *b.path != "" {
			continue
		}
		*b.path = filepath.Join(s.bin, "keyturn-"+b.dir)
		fmt.Fprintf(progress, "building keyturn-%s\n", b.dir)
		if err := Build(ctx, b.dir, *b.path, progress); err != nil {
			return err
		}
	}
	return nil
}

// Build builds the program in dir, which is relative to the root of keyturn's module and may be in a module of its own, as
// a static binary. What the go command says goes to progress. An interrupted build may leave files beside the binary.
func Build(ctx context.Context, dir, binary string, progress io.Writer) error {
	var root strings.Builder
	list := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/keyturn/keyturn")
	list.Stdout, list.Stderr = &root, progress
	if err := list.Run(); err != nil {
		return fmt.Errorf("find keyturn's module (run this within it): %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", binary, ".")
	cmd.Dir = filepath.Join(strings.TrimSpace(root.String()), dir)
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=0", "GOTMPDIR="+filepath.Dir(binary))
	cmd.Stdout, cmd.Stderr = progress, progress
	endWhole(cmd)
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("build %s: %w", dir, err)
	}
	return nil
}

// endWhole makes the end of cmd's context the end of all that cmd started: a compiler must not outlive a Ctrl-C.
func endWhole(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
}
