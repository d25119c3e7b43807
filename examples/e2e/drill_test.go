package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

// drilled is what is looked at of a report of examples/quickstart.
type drilled struct {
	Passed bool
	Runs   []struct {
		Weather, SDK string
		Requests     struct{ Total, Streams, Rescued, Failed int }
		Rotations    []struct {
			Used float64 `json:"used_at"`
		}
		Reads int                `json:"vault_reads"`
		App   map[string]float64 `json:"app_metrics"`
	}
}

// The drill itself, but for minutes of it: "make drill" is the full one.
func TestNoRequestFailsWhateverTheWeatherOfARotation(t *testing.T) {
	if _, err := vaulttest.Binary(t.Context(), os.Stderr); err != nil {
		vaulttest.Missing(t, err)
	}
	for weather, rotations := range map[string]string{"overlap": "3", "delayed": "2", "outage": "2", "revoked": "10"} {
		t.Run(weather, func(t *testing.T) {
			t.Parallel()
			r := runDrill(t, "-weather", weather, "-rotations", rotations, "-rate", "100", "-streams", "0.3", "-latency=false",
				"-delay", "2s", "-outage", "1500ms")
			if !r.Passed || len(r.Runs) != 2 || r.Runs[0].SDK == r.Runs[1].SDK {
				t.Fatalf("passed: %v, with %d runs", r.Passed, len(r.Runs))
			}
			for _, run := range r.Runs {
				if run.Requests.Failed != 0 || run.Requests.Total < 200 || run.Requests.Streams < 50 {
					t.Errorf("%s: %+v", run.SDK, run.Requests)
				}
				for i, rotation := range run.Rotations {
					if rotation.Used == 0 {
						t.Errorf("%s: the key of rotation %d never came into use", run.SDK, i+1)
					}
				}
				switch n := len(run.Rotations); {
				case weather == "overlap" && run.Requests.Rescued != 0:
					t.Errorf("%s: %d requests had to be rescued, though the old key lived on", run.SDK, run.Requests.Rescued)
				case weather == "revoked" && (run.Requests.Rescued < n/2 || run.Reads > 2*n+3):
					t.Errorf("%s: %d rescued and %d reads of Vault across %d rotations", run.SDK, run.Requests.Rescued, run.Reads, n)
				case run.App["keyturn_app_acknowledged_total"] < float64(n):
					t.Errorf("%s: %v acknowledgements of %d rotations", run.SDK, run.App["keyturn_app_acknowledged_total"], n)
				}
			}
		})
	}
}

// runDrill runs examples/quickstart with programs that were built as these tests were, and looks at all that they logged.
func runDrill(t *testing.T, args ...string) drilled {
	t.Helper()
	dir := t.TempDir()
	file, logs := filepath.Join(dir, "drill.json"), filepath.Join(dir, "logs")
	args = append([]string{"run", "github.com/keyturn/keyturn/examples/quickstart", "drill", "-json", file, "-logs", logs,
		"-agent", ours.build(t, "agent"), "-app", ours.build(t, "app")}, args...)
	out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput()
	if err != nil {
		t.Errorf("the drill: %v\n%s", err, out)
	}
	lookForSecrets(t, "its output", out)
	for _, path := range must[[]string](t)(filepath.Glob(filepath.Join(logs, "*"))) {
		log := must[[]byte](t)(os.ReadFile(path))
		lookForSecrets(t, filepath.Base(path), log)
		if strings.Contains(string(log), "DATA RACE") {
			t.Errorf("%s has a data race:\n%s", filepath.Base(path), log)
		}
	}
	var r drilled
	if err := json.Unmarshal(must[[]byte](t)(os.ReadFile(file)), &r); err != nil {
		t.Fatal(err)
	}
	return r
}

// lookForSecrets looks for the keys that the drill makes up, and for Vault's tokens.
func lookForSecrets(t *testing.T, where string, text []byte) {
	t.Helper()
	if slices.ContainsFunc([]string{"drill-key-", "hvs."}, func(s string) bool { return strings.Contains(string(text), s) }) {
		t.Errorf("there is a secret in %s:\n%s", where, text)
	}
}
