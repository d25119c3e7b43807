package vaulttest

import (
	"bytes"
	"context"
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

// Binary returns the path of a Vault: the one that VAULT_BIN names, else the one on PATH, else one that examples/devvault
// builds from source and keeps, which takes minutes the first time. What it does meanwhile goes to progress.
func Binary(ctx context.Context, progress io.Writer) (string, error) {
	if path := os.Getenv("VAULT_BIN"); path != "" {
		if _, err := exec.LookPath(path); err != nil {
			return "", fmt.Errorf("VAULT_BIN names no program: %w", err)
		}
		return filepath.Abs(path)
	}
	if path, err := exec.LookPath("vault"); err == nil {
		return filepath.Abs(path)
	}
	return build(ctx, progress)
}

// buildStopTimeout bounds how long what was interrupted may take to end.
const buildStopTimeout = 15 * time.Second

// build runs examples/devvault. Not by "go run", which wouldn't pass an interruption on to it.
func build(ctx context.Context, progress io.Writer) (string, error) {
	root, err := output(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/keyturn/keyturn"), progress)
	if err != nil {
		return "", fmt.Errorf("find the module that holds examples/devvault: %w", err)
	}
	source := filepath.Join(root, "examples", "devvault")
	dir, err := os.MkdirTemp("", "devvault-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(dir)
	program := filepath.Join(dir, "devvault")
	compile := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	compile.Dir = source
	if _, err := output(compile, progress); err != nil {
		return "", fmt.Errorf("build examples/devvault: %w", err)
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Dir = source
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = buildStopTimeout
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread() // the kernel sends the death signal when the thread that forked ends
	defer runtime.UnlockOSThread()
	path, err := output(cmd, progress)
	if err != nil {
		return "", fmt.Errorf("build a Vault (or set VAULT_BIN to one): %w", err)
	}
	return path, nil
}

func output(cmd *exec.Cmd, progress io.Writer) (string, error) {
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, progress
	err := cmd.Run()
	return strings.TrimSpace(out.String()), err
}
