package keyfile

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// BenchmarkRenameToReading is from just before the rename until the consumer has the new key: of a file that the agent has
// written in the same breath, so that its first events have woken the watcher, and of one that lay ready.
func BenchmarkRenameToReading(b *testing.B) {
	b.Run("agent", func(b *testing.B) { renameToReading(b, 0) })
	b.Run("ready", func(b *testing.B) { renameToReading(b, 2*time.Millisecond) })
}

func renameToReading(b *testing.B, rest time.Duration) {
	path := filepath.Join(memory(b), "key")
	render(b, path, "key-1")
	ctx, cancel := context.WithCancel(b.Context())
	got := make(chan time.Time)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(got)
		for _, err := range New(Config{Path: path}).Keys(ctx) {
			if err != nil {
				b.Error(err)
				return
			}
			got <- time.Now()
		}
	}()
	<-got
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		name := prepare(b, path, []string{"key-0", "key-1"}[i%2])
		if rest > 0 {
			<-time.After(rest)
		}
		start := time.Now()
		if err := os.Rename(name, path); err != nil {
			b.Fatal(err)
		}
		took = append(took, (<-got).Sub(start))
	}
	cancel()
	<-done
	slices.Sort(took)
	b.ReportMetric(0, "ns/op") // it would count the preparation
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds())/1e3, "p50-µs")
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds())/1e3, "p99-µs")
}

func BenchmarkRead(b *testing.B) {
	path := filepath.Join(memory(b), "key")
	render(b, path, canary)
	w := New(Config{Path: path})
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Read(); err != nil {
			b.Fatal(err)
		}
	}
}
