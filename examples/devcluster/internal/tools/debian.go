package tools

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// Unpack returns a directory with the content of the Debian packages, without what they depend on. Nothing is installed, so
// no service starts. The caller must not change what is in it.
func (s *Set) Unpack(ctx context.Context, packages ...string) (string, error) {
	all := strings.Join(packages, " ")
	dir := filepath.Join(s.cache, fmt.Sprintf("debian-%.6x", sha256.Sum256([]byte(all))))
	return dir, s.make(ctx, dir, "fetching the Debian packages "+all, func(ctx context.Context, into string) error {
		if err := download(ctx, into, packages); err != nil {
			return err
		}
		archives, err := filepath.Glob(filepath.Join(into, "*.deb"))
		if err != nil {
			return err
		}
		for _, archive := range archives {
			if err := run(ctx, exec.Command("dpkg-deb", "-x", archive, into)); err != nil {
				return err
			}
		}
		return run(ctx, exec.Command("rm", append([]string{"--"}, archives...)...))
	})
}

// download puts the packages into dir. A machine's list of packages may be missing or old.
func download(ctx context.Context, dir string, packages []string) error {
	fetch := func() error {
		cmd := exec.Command("apt-get", append([]string{"download", "-qq", "-o", "APT::Sandbox::User=root"}, packages...)...)
		cmd.Dir = dir
		return run(ctx, cmd)
	}
	if fetch() == nil {
		return nil
	}
	if err := run(ctx, exec.Command("apt-get", "update", "-qq")); err != nil {
		return err
	}
	return fetch()
}
