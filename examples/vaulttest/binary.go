package vaulttest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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

func build(ctx context.Context, progress io.Writer) (string, error) {
	root, err := output(exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}"), progress)
	if err != nil {
		return "", fmt.Errorf("find the module that holds examples/devvault: %w", err)
	}
	cmd := exec.CommandContext(ctx, "go", "run", ".")
	cmd.Dir = filepath.Join(root, "examples", "devvault")
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
