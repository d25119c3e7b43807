package sink

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Swappable says why the directory's content may be written to a disk: it lies on a tmpfs without noswap, and this machine
// has swap; "" if it can't be. tmpfs knows noswap since Linux 6.4 (tmpfs(5)).
func (d *Dir) Swappable() string {
	swaps, err := os.ReadFile("/proc/swaps")
	if err != nil || bytes.Count(swaps, []byte("\n")) < 2 { // the first line is a heading
		return ""
	}
	mount, err := d.mount()
	if err != nil || !swappable(mount) {
		return ""
	}
	return d.path + " lies on a tmpfs without the option noswap, and this machine has swap: mount it with noswap, or turn swap off"
}

// mount returns the line of mountinfo about the mount that the pinned directory lies on (proc_pid_mountinfo(5)). The kernel
// knows it by a number, whatever links or other mounts lead to the path.
func (d *Dir) mount() (string, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", d.pin.lock.Fd()))
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	return mountOf(string(info), string(mounts)), nil
}

// mountOf finds the mount that fdinfo names (proc_pid_fdinfo(5)); "" if it isn't among those of this process.
func mountOf(fdinfo, mountinfo string) string {
	_, id, _ := strings.Cut(fdinfo, "mnt_id:")
	id, _, _ = strings.Cut(strings.TrimSpace(id), "\n")
	for line := range strings.Lines(mountinfo) {
		if number, _, _ := strings.Cut(line, " "); number == id {
			return line
		}
	}
	return ""
}

// swappable reports whether a line of mountinfo is about a tmpfs without noswap.
func swappable(mount string) bool {
	_, after, _ := strings.Cut(mount, " - ")
	fields := strings.Fields(after) // type, source, options
	return len(fields) == 3 && fields[0] == "tmpfs" && !slices.Contains(strings.Split(fields[2], ","), "noswap")
}
