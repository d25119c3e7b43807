// Package kubernetes_test compares what "kubectl kustomize" makes of base, example and component with files that people have
// looked at. "go test ./examples/kubernetes -update" writes them anew.
package kubernetes_test

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestKustomizationsMakeWhatIsExpected(t *testing.T) {
	kubectl := findKubectl(t)
	for _, c := range []struct{ directory, golden string }{
		{"base", "base.yaml"},
		{"example", "example.yaml"},
		{"testdata/kinds", "kinds.yaml"}, // one workload of each kind that the component takes, and two that it leaves alone
	} {
		var problem bytes.Buffer
		cmd := exec.CommandContext(t.Context(), kubectl, "kustomize", c.directory)
		cmd.Stderr = &problem
		got, err := cmd.Output()
		if err != nil {
			t.Errorf("%s: %v: %s", c.directory, err, problem.String())
			continue
		}
		if problem.Len() > 0 {
			t.Errorf("%s: kubectl warns: %s", c.directory, problem.String())
		}
		golden := filepath.Join("testdata", c.golden)
		if *update {
			if err := os.WriteFile(golden, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if want, err := os.ReadFile(golden); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is no longer what %s has (%v); look at the difference, then run this test with -update:\n%s",
				c.directory, golden, err, difference(golden, got))
		}
	}
}

// difference is what diff says, or all of it where there is no diff.
func difference(golden string, got []byte) string {
	cmd := exec.Command("diff", "-u", golden, "-")
	cmd.Stdin = bytes.NewReader(got)
	out, err := cmd.Output()
	if _, ran := errors.AsType[*exec.ExitError](err); !ran {
		return string(got)
	}
	return string(out)
}

// findKubectl returns one that has Kustomize 5, from PATH or made by examples/devcluster.
func findKubectl(t *testing.T) string {
	t.Helper()
	if path, err := exec.LookPath("kubectl"); err == nil {
		out, err := exec.CommandContext(t.Context(), path, "version", "--client").Output()
		if err == nil && regexp.MustCompile(`Kustomize Version: v5\.`).Match(out) {
			return path
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "run", ".", "tools")
	cmd.Dir, cmd.Stderr = "../devcluster", os.Stderr
	directory, err := cmd.Output()
	if err == nil {
		return filepath.Join(strings.TrimSpace(string(directory)), "kubectl")
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("no kubectl to test with: %v", err)
	}
	t.Skipf("NOT TESTED, there is no kubectl with Kustomize 5 (%v)", err)
	return ""
}
