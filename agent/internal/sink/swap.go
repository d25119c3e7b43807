package sink

import (
	"bufio"
	"bytes"
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
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || !swappable(string(mounts), d.path) {
		return ""
	}
	return d.path + " lies on a tmpfs without the option noswap, and this machine has swap: mount it with noswap, or turn swap off"
}

// swappable reports whether the mount that path lies on, the last of the longest ones that lead to it, is a tmpfs without
// noswap. The format is that of proc_pid_mountinfo(5).
func swappable(mountinfo, path string) bool {
	longest, result := -1, false
	for lines := bufio.NewScanner(strings.NewReader(mountinfo)); lines.Scan(); {
		before, after, _ := strings.Cut(lines.Text(), " - ")
		own, super := strings.Fields(before), strings.Fields(after)
		if len(own) < 6 || len(super) < 3 {
			continue
		}
		point := own[4]
		if len(point) < longest || point != "/" && point != path && !strings.HasPrefix(path, point+"/") {
			continue
		}
		options := strings.Split(super[2], ",")
		longest, result = len(point), super[0] == "tmpfs" && !slices.Contains(options, "noswap")
	}
	return result
}
