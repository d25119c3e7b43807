package sink

import (
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

func BenchmarkRender(b *testing.B) {
	d := open(b, memory(b))
	values := []secret.Value{secret.New([]byte(strings.Repeat("a", 53))), secret.New([]byte(strings.Repeat("b", 53)))}
	for i := 0; b.Loop(); i++ {
		if _, err := d.Render("key", values[i%2]); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkTornReads makes ten million reads of a file that is rendered a thousand times meanwhile, and counts those
// that were torn or empty.
func BenchmarkTornReads(b *testing.B) {
	const reads, renders = 10_000_000, 1_000
	for b.Loop() {
		dir := memory(b)
		d := open(b, dir)
		contents := [2]string{strings.Repeat("a", 53), strings.Repeat("b", 4096)}
		render(b, d, "key", contents[0])
		var done, torn, rendered atomic.Int64
		var readers sync.WaitGroup
		for range 4 {
			readers.Go(func() {
				buffer := make([]byte, 8192)
				for done.Add(1) <= reads {
					if got := read(filepath.Join(dir, "key"), buffer); got != contents[0] && got != contents[1] {
						torn.Add(1)
					}
				}
			})
		}
		for i := int64(1); done.Load() < reads; i = min(i+1, renders+1) {
			for done.Load() < i*(reads/(renders+1)) {
				syscall.Select(0, nil, nil, nil, &syscall.Timeval{Usec: 100})
			}
			if i <= renders {
				render(b, d, "key", contents[i%2])
				rendered.Add(1)
			}
		}
		readers.Wait()
		b.ReportMetric(float64(torn.Load()), "torn")
		b.ReportMetric(float64(rendered.Load()), "rotations")
		b.ReportMetric(reads, "reads")
		if torn.Load() > 0 {
			b.Errorf("%d of %d reads were torn or empty", torn.Load(), reads)
		}
	}
}

// read is os.ReadFile without its garbage.
func read(path string, buffer []byte) string {
	fd, err := syscall.Open(path, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer syscall.Close(fd)
	n, err := syscall.Read(fd, buffer)
	if err != nil {
		return ""
	}
	return string(buffer[:n])
}
