package e2e

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// result is what became of one fault.
type result struct {
	fault, did       string
	requests, failed int // of the app; 0: there was none
	recovered        time.Duration
}

// results are those of this test run.
var results outcomes

type outcomes struct {
	mu   sync.Mutex
	rows []result
}

func (t *outcomes) add(r result) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rows = append(t.rows, r)
}

// write writes the table to the file that -faults.table names.
func (t *outcomes) write() error {
	if *faultTable == "" {
		return nil
	}
	return os.WriteFile(*faultTable, []byte(t.String()), 0o644)
}

func (t *outcomes) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	var b strings.Builder
	b.WriteString("| fault | what was done | requests | failed | recovered after |\n|---|---|--:|--:|--:|\n")
	slices.SortStableFunc(t.rows, func(a, b result) int { return cmp.Compare(order(a.fault), order(b.fault)) })
	for _, r := range t.rows {
		requests, failed := fmt.Sprint(r.requests), fmt.Sprint(r.failed)
		if r.requests == 0 {
			requests, failed = "", ""
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %.1f s |\n", r.fault, r.did, requests, failed, r.recovered.Seconds())
	}
	return b.String()
}

// order returns where a fault stands among those that are told of.
func order(name string) int {
	for i, f := range allKinds() {
		if f.name == name {
			return i
		}
	}
	return 1 << 10
}

// The table in README.md is the one that the suite wrote last: go test ./examples/e2e -run Readme -update puts it there.
func TestTheReadmesTableOfFaultsIsWhatTheSuiteWrote(t *testing.T) {
	path := filepath.Join(repository(t), "README.md")
	readme := string(must[[]byte](t)(os.ReadFile(path)))
	wrote := string(must[[]byte](t)(os.ReadFile(filepath.Join("testdata", "faults.md"))))
	for _, f := range allKinds() {
		if !strings.Contains(wrote, "\n| "+f.name+" | "+f.did+" | ") {
			t.Errorf("testdata/faults.md doesn't tell of %s as it is made now: make faults", f.name)
		}
	}
	begin, end := "<!-- faults -->\n", "<!-- end -->"
	before, rest, found := strings.Cut(readme, begin)
	is, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("README.md has no table between %q and %q", begin, end)
	}
	if is == wrote {
		return
	}
	if !*update {
		t.Fatal("README.md's table of faults is not the one that the suite wrote; the test's flag -update puts it there")
	}
	if err := os.WriteFile(path, []byte(before+begin+wrote+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
