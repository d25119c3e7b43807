//go:build pod

package podtest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// load is requests that run, one after the other on each of its workers, until stop.
type load struct {
	ctx  context.Context
	end  context.CancelFunc
	work sync.WaitGroup

	mu       sync.Mutex
	sent     int
	failures []string
}

// askers is how many requests run at once; each asker rests between two of its own.
const (
	askers = 4
	rest   = 20 * time.Millisecond
)

// ask sends prompts to url until stop is called.
func ask(t *testing.T, url string, pause time.Duration) *load {
	l := &load{}
	l.ctx, l.end = context.WithCancel(context.Background())
	for range askers {
		l.work.Go(func() {
			for l.ctx.Err() == nil {
				err := prompt(url)
				l.mu.Lock()
				l.sent++
				if err != nil {
					l.failures = append(l.failures, time.Now().Format("15:04:05.000")+" "+err.Error())
				}
				l.mu.Unlock()
				select {
				case <-time.After(pause):
				case <-l.ctx.Done():
				}
			}
		})
	}
	t.Cleanup(func() { l.end(); l.work.Wait() })
	return l
}

// prompt is one request, which isn't cut when the load ends.
func prompt(url string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, url, strings.NewReader(`{"prompt":"hello"}`))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, body)
	}
	return err
}

// count returns how many requests have ended.
func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// more waits until n more requests have ended.
func (l *load) more(t *testing.T, n int) {
	t.Helper()
	want := l.count() + n
	eventually(t, time.Minute, fmt.Sprintf("%d more requests", n), func(context.Context) error {
		if now := l.count(); now < want {
			return fmt.Errorf("%d of them are missing", want-now)
		}
		return nil
	})
}

// stop ends the load, and the test fails if a request has.
func (l *load) stop(t *testing.T) {
	t.Helper()
	l.end()
	l.work.Wait()
	t.Logf("%d requests, %d failed", l.sent, len(l.failures))
	if len(l.failures) > 0 {
		t.Errorf("%d of %d requests failed, the first: %s", len(l.failures), l.sent, strings.Join(l.failures[:min(5, len(l.failures))], "\n"))
	}
}
