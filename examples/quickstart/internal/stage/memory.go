package stage

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// memoryDir makes a directory, 0700, on a file system that lives in memory: a key must not reach a disk.
func memoryDir(runtimeDir string) (string, error) {
	var reasons error
	for _, parent := range []string{runtimeDir, "/dev/shm"} {
		if parent == "" {
			continue
		}
		if err := inMemory(parent); err != nil {
			reasons = errors.Join(reasons, err)
			continue
		}
		dir, err := os.MkdirTemp(parent, "keyturn-")
		if err == nil {
			return dir, nil
		}
		reasons = errors.Join(reasons, err)
	}
	return "", fmt.Errorf("there is no tmpfs to keep the key in; mount one that you can write to, and set XDG_RUNTIME_DIR to it:\n%w", reasons)
}

func inMemory(dir string) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	if fs.Type != unix.TMPFS_MAGIC && fs.Type != unix.RAMFS_MAGIC {
		return fmt.Errorf("%s is not a tmpfs", dir)
	}
	return nil
}
