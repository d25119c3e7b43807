package logtest

import (
	"fmt"
	"strings"
	"sync"
	"testing"
)

func TestManyWriteAndNothingIsLostUntilItIsTaken(t *testing.T) {
	var p Page
	var writing sync.WaitGroup
	for i := range 100 {
		writing.Go(func() {
			fmt.Fprintln(&p, i)
			_ = p.String()
		})
	}
	writing.Wait()
	if n := strings.Count(p.String(), "\n"); n != 100 {
		t.Errorf("%d lines, want 100", n)
	}
	if taken := p.Take(); strings.Count(taken, "\n") != 100 || p.String() != "" {
		t.Errorf("%d lines are taken, and %q is left", strings.Count(taken, "\n"), p.String())
	}
}
