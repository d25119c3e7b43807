//go:build pod

package podtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// needNode skips a test in a cluster whose node can't be looked into.
func (c *cluster) needNode(t *testing.T) {
	t.Helper()
	if c.node == "" {
		t.Skip("NOT TESTED: it needs the node's processes, and the cluster isn't the test's own")
	}
}

// process returns the pid of a container's first process, as this machine counts.
func (c *cluster) process(t *testing.T, container containerStatus) int {
	t.Helper()
	_, id, _ := strings.Cut(container.ContainerID, "://")
	files, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if content, err := os.ReadFile(file); err == nil && id != "" && strings.Contains(string(content), id) {
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			if inner := processField(pid, "NSpid"); inner[len(inner)-1] == "1" {
				return pid
			}
		}
	}
	t.Fatalf("no process of the container %s (%s) runs on this machine", container.Name, id)
	return 0
}

// processField returns the words of a line of /proc/PID/status; at least one, which may be empty.
func processField(pid int, name string) []string {
	content, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(content)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.Fields(rest)
		}
	}
	return []string{""}
}

// mount is one of a process's.
type mount struct{ options, filesystem string }

// mounts returns those of a process by their place.
func mounts(t *testing.T, pid int) map[string]mount {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]mount{}
	for line := range strings.Lines(string(content)) {
		fields := strings.Fields(line) // ID parent device root place options … - filesystem source options
		_, after, _ := strings.Cut(line, " - ")
		all[fields[4]] = mount{fields[5], strings.Fields(after)[0]}
	}
	return all
}
