package e2e

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// resident returns the memory of a running process that is in RAM (VmRSS of proc(5)), in bytes.
func (p *process) resident(t testing.TB) int64 {
	t.Helper()
	status := must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid)))
	for line := range strings.Lines(string(status)) {
		if rest, found := strings.CutPrefix(line, "VmRSS:"); found {
			kib := must[int64](t)(strconv.ParseInt(strings.Fields(rest)[0], 10, 64))
			return kib << 10
		}
	}
	t.Fatal("/proc tells no VmRSS")
	return 0
}

// userHz is the unit of times in /proc (USER_HZ of time(7), 100 on every architecture that Go runs on).
const userHz = 100

// cpu returns the processor time that a running process has used so far, in steps of 10 ms.
func (p *process) cpu(t testing.TB) time.Duration {
	t.Helper()
	stat := string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))))
	fields := strings.Fields(stat[strings.LastIndex(stat, ")")+1:]) // the name in parentheses may hold anything
	user := must[int64](t)(strconv.ParseInt(fields[11], 10, 64))
	system := must[int64](t)(strconv.ParseInt(fields[12], 10, 64))
	return time.Duration(user+system) * (time.Second / userHz)
}

// load returns how much of one core a process uses over a time, in percent.
func (p *process) load(t testing.TB, over time.Duration) float64 {
	t.Helper()
	before, began := p.cpu(t), time.Now()
	<-time.After(over)
	return 100 * float64(p.cpu(t)-before) / float64(time.Since(began))
}

// descriptors returns how many file descriptors a running process has open.
func (p *process) descriptors(t testing.TB) int {
	t.Helper()
	return len(must[[]os.DirEntry](t)(os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))))
}
