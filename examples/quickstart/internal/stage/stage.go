// Package stage sets up what a rotation needs to be seen: a real Vault with a secret, a policy and an AppRole, the two
// binaries, and a directory in memory for everything that is secret. It takes all of it away again.
package stage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

// Options say where things come from. The zero value is usable.
type Options struct {
	// Agent and App are the binaries; empty: built from this module.
	Agent, App string
	// RuntimeDir is where a directory in memory is made, if it lies on a tmpfs: XDG_RUNTIME_DIR. Otherwise /dev/shm is taken.
	RuntimeDir string
	// Logs is a directory that keeps what the agents and apps log; empty: only the last lines are kept, for errors.
	Logs string
	// Progress gets a line for each thing that takes a while; nil: nobody.
	Progress io.Writer
}

// Stage is a Vault and two binaries, ready for pods. Its methods are not safe for concurrent use, but for those of the
// Vault. Close it.
type Stage struct {
	// Dir is a directory in memory, 0700. All secrets and sockets of the stage lie below it.
	Dir string
	// Vault is the Vault and its secret.
	Vault *Vault

	agent, app string
	logs       string
	bin        string // where the binaries were built; empty if they weren't
	pods       int
}

// Open sets the stage. It blocks while Vault and the binaries are built, which may take minutes the first time; ctx governs
// only that. After an error nothing is left behind.
func Open(ctx context.Context, o Options) (_ *Stage, err error) {
	if o.Progress == nil {
		o.Progress = io.Discard
	}
	s := &Stage{agent: o.Agent, app: o.App, logs: o.Logs}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if s.Dir, err = memoryDir(o.RuntimeDir); err != nil {
		return nil, err
	}
	if o.Logs != "" {
		if err := os.MkdirAll(o.Logs, 0o700); err != nil {
			return nil, err
		}
	}
	binary, err := vaulttest.Binary(ctx, o.Progress)
	if err != nil {
		return nil, err
	}
	if err := s.build(ctx, o.Progress); err != nil {
		return nil, err
	}
	fmt.Fprintln(o.Progress, "starting Vault in dev mode")
	s.Vault, err = openVault(ctx, binary, filepath.Join(s.Dir, "vault"))
	return s, err
}

// Close stops Vault and removes every file of the stage. Close the pods first. It may be called again.
func (s *Stage) Close() error {
	var err error
	if s.Vault != nil {
		err = s.Vault.server.Stop()
		s.Vault = nil
	}
	for _, dir := range []string{s.Dir, s.bin} {
		if dir != "" {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}
	return err
}
