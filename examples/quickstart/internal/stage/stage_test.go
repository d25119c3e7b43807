package stage

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestADirectoryInMemoryIsPrivateAndOnATmpfs(t *testing.T) {
	dir, err := memoryDir("")
	if err != nil {
		t.Skipf("NOT TESTED, /dev/shm is no tmpfs: %v", err)
	}
	defer os.RemoveAll(dir)
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o700 || filepath.Dir(dir) != "/dev/shm" {
		t.Errorf("%s: %v, %v", dir, info.Mode(), err)
	}
}

func TestARuntimeDirOnADiskIsPassedOver(t *testing.T) {
	disk := t.TempDir()
	if inMemory(disk) == nil {
		t.Skip("NOT TESTED, temporary files are in memory here")
	}
	if dir, err := memoryDir(disk); err == nil {
		defer os.RemoveAll(dir)
		if !strings.HasPrefix(dir, "/dev/shm/") {
			t.Errorf("the directory is %s", dir)
		}
	}
	if err := inMemory(disk); err == nil || !strings.Contains(err.Error(), "not a tmpfs") {
		t.Errorf("the reason is %v", err)
	}
}

func TestMetricsAreReadWithTheirLabels(t *testing.T) {
	m := parseMetrics(`# HELP go_goroutines Number of goroutines.
# TYPE go_goroutines gauge
go_goroutines 21
process_resident_memory_bytes 1.8612224e+07
keyturn_app_requests_total{method="generate",outcome="ok"} 5

nonsense
`)
	if len(m) != 3 || m["go_goroutines"] != 21 || m["process_resident_memory_bytes"] != 18612224 ||
		m[`keyturn_app_requests_total{method="generate",outcome="ok"}`] != 5 {
		t.Errorf("%v", m)
	}
}

func TestATailKeepsTheLastLines(t *testing.T) {
	var tail tail
	for i := range 30 {
		tail.Write([]byte{'a' + byte(i%26), '\n'})
	}
	tail.Write([]byte("half a "))
	tail.Write([]byte("line"))
	if got := tail.String(); strings.Count(got, "\n") != tailLines || !strings.HasSuffix(got, "\n  d\n  half a line") {
		t.Errorf("the tail is %q", got)
	}
}

func TestAProcessThatEndedSaysHowAndIsStoppedWithoutAnError(t *testing.T) {
	sleep, err := exec.LookPath("cat") // waits for its standard input, which is empty: it ends by itself
	if err != nil {
		t.Skip("NOT TESTED, there is no cat")
	}
	p, err := launch("cat", sleep, nil, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	<-p.ended
	if err := p.died(); !strings.Contains(err.Error(), "cat ended by itself (exit status 0)") {
		t.Errorf("it ended with %v", err)
	}
	for range 2 {
		if err := p.stop(); err != nil {
			t.Errorf("a process that has ended was stopped with %v", err)
		}
	}
	if _, err := launch("nothing", filepath.Join(t.TempDir(), "nothing"), nil, ""); err == nil {
		t.Error("a program that doesn't exist was started")
	}
}

func TestABuildThatIsBrokenOffEndsWithAnError(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	binary := filepath.Join(t.TempDir(), "agent")
	if err := Build(ctx, "agent", binary, t.Output()); err == nil {
		t.Error("it was built")
	}
	if _, err := os.Stat(binary); err == nil {
		t.Error("there is a binary")
	}
}
