package node

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// cgroup is the one below which all containers are.
const cgroup = "keyturn-devcluster"

const cgroupMount = "/sys/fs/cgroup"

// hierarchies returns the roots of the cgroup hierarchies: one in version 2, one a controller in version 1 (cgroups(7)).
func hierarchies() ([]string, error) {
	if isV2() {
		return []string{cgroupMount}, nil
	}
	entries, err := os.ReadDir(cgroupMount)
	if err != nil {
		return nil, err
	}
	var roots []string
	for _, e := range entries { // links are other names of directories that are there as well
		if root := filepath.Join(cgroupMount, e.Name()); e.IsDir() {
			if _, err := os.Stat(filepath.Join(root, "cgroup.procs")); err == nil {
				roots = append(roots, root)
			}
		}
	}
	return roots, nil
}

func isV2() bool {
	_, err := os.Stat(filepath.Join(cgroupMount, "cgroup.controllers"))
	return err == nil
}

// makeCgroups makes the cgroup in every hierarchy: a kubelet wants to find it.
func makeCgroups() error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	for _, root := range roots {
		dir := filepath.Join(root, cgroup)
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if isV2() {
			if err := errors.Join(delegate(root), delegate(dir)); err != nil {
				return err
			}
		}
	}
	return nil
}

// delegate lets the children of dir have all of its controllers.
func delegate(dir string) error {
	available, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return err
	}
	for _, controller := range strings.Fields(string(available)) {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0); err != nil {
			return err
		}
	}
	return nil
}

// removeCgroups removes the cgroup with all below it. No process may be left in there.
func removeCgroups() error {
	roots, err := hierarchies()
	if err != nil {
		return err
	}
	var failures error
	for _, root := range roots {
		failures = errors.Join(failures, removeTree(filepath.Join(root, cgroup)))
	}
	return failures
}

// removeTree removes directories only: the files of a cgroup go with it.
func removeTree(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	for _, e := range entries {
		if e.IsDir() {
			err = errors.Join(err, removeTree(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(err, remove(dir))
}

// remove removes a cgroup, which is busy until the kernel has forgotten the last process in it.
func remove(dir string) error {
	var err error
	for range 50 {
		if err = os.Remove(dir); err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}
