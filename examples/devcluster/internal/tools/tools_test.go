package tools

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

func set(t *testing.T) (s *Set, dir string) {
	cache := t.TempDir()
	return &Set{cache: cache, version: "v1.2.3", progress: io.Discard}, filepath.Join(cache, "things")
}

func TestADirectoryIsMadeOnceForAllWhoWantIt(t *testing.T) {
	s, dir := set(t)
	var fills atomic.Int32
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			err := s.make(t.Context(), dir, "making", func(_ context.Context, into string) error {
				fills.Add(1)
				return os.WriteFile(filepath.Join(into, "thing"), nil, 0o600)
			})
			if _, found := os.Stat(filepath.Join(dir, "thing")); err != nil || found != nil {
				t.Errorf("%v, %v", err, found)
			}
		})
	}
	work.Wait()
	if n := fills.Load(); n != 1 {
		t.Errorf("it was made %d times", n)
	}
}

func TestAFailureLeavesNothingAndTheNextTryMakesIt(t *testing.T) {
	s, dir := set(t)
	broken := errors.New("broken")
	err := s.make(t.Context(), dir, "making", func(_ context.Context, into string) error {
		return errors.Join(os.WriteFile(filepath.Join(into, "half"), nil, 0o600), broken)
	})
	if _, found := os.Stat(dir); !errors.Is(err, broken) || !errors.Is(found, os.ErrNotExist) {
		t.Errorf("%v, and the directory: %v", err, found)
	}
	err = s.make(t.Context(), dir, "making", func(_ context.Context, into string) error {
		if left, _ := os.ReadDir(into); len(left) > 0 {
			t.Errorf("the failure left %v", left)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func TestTheVersionIsStampedForProgramsThatCompareIt(t *testing.T) {
	s, _ := set(t)
	for _, stamp := range []string{"gitVersion=v1.2.3", "gitMajor=1", "gitMinor=2"} {
		if !strings.Contains(s.stamps(), stamp) {
			t.Errorf("%s has no %s", s.stamps(), stamp)
		}
	}
}
