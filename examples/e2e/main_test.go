// Package e2e tests the system from outside: the binaries as processes, with a real Vault, judged by the files, the logs,
// the metrics and the exit codes that they leave.
package e2e

import (
	"errors"
	"fmt"
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	code := m.Run()
	err := errors.Join(shared.stop(), ours.remove())
	if code == 0 { // else the table would have rows that are missing, or wrong
		err = errors.Join(err, results.write())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// patience is how long eventually waits: far above what a slow machine needs.
const patience = 30 * time.Second

// eventually polls until ok.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("it never came to this: %s", what)
		}
	}
}

func must[T any](t testing.TB) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
