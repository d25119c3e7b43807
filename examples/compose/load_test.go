//go:build compose

package compose

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sync"
	"testing"
	"time"
)

// answer is what the app says to a prompt.
type answer struct {
	Text       string `json:"text"`
	Generation uint64 `json:"generation"`
}

// notAnswered is a request that came to nothing before the app said anything: there was nobody, or he left.
type notAnswered struct{ error }

// caller keeps no connection: one to a container that is gone would fail a request that a new one takes.
var caller = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}

// ask asks the app once.
func (s *stack) ask(ctx context.Context) (a answer, err error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://127.0.0.1:"+s.port+"/v1/generate",
		bytes.NewReader([]byte(`{"prompt":"Say hello."}`)))
	if err != nil {
		return a, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := caller.Do(request)
	if err != nil {
		return a, notAnswered{err}
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return a, err
	}
	if response.StatusCode != http.StatusOK {
		return a, fmt.Errorf("%s: %s", response.Status, body)
	}
	if err := json.Unmarshal(body, &a); err != nil || a.Text == "" || a.Generation == 0 {
		return a, fmt.Errorf("the app answers %q (%w)", body, err)
	}
	return a, nil
}

// awaitAnswer asks until the app answers with a generation of at least least.
func (s *stack) awaitAnswer(t *testing.T, within time.Duration, least uint64) answer {
	t.Helper()
	var a answer
	eventually(t, within, fmt.Sprintf("an answer of generation %d", least), func() (bool, string) {
		var err error
		a, err = s.ask(t.Context())
		return err == nil && a.Generation >= least, fmt.Sprintf("%+v, %v", a, err)
	})
	return a
}

// load asks all the time, with several requests at once.
type load struct {
	stop context.CancelFunc
	done sync.WaitGroup

	mu       sync.Mutex
	absent   bool // the app may be away: who is not answered asks again
	answered int
	again    int
	failed   []error
}

const askers = 4

func (s *stack) startLoad(t *testing.T) *load {
	ctx, cancel := context.WithCancel(t.Context())
	l := &load{stop: cancel}
	t.Cleanup(func() { l.end() })
	for range askers {
		l.done.Go(func() {
			for pause := time.NewTicker(10 * time.Millisecond); ctx.Err() == nil; {
				_, err := s.ask(ctx)
				l.note(ctx, err)
				select {
				case <-pause.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return l
}

func (l *load) note(ctx context.Context, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, unanswered := err.(notAnswered)
	switch {
	case err == nil:
		l.answered++
	case ctx.Err() != nil: // the load ends, and took this request with it
	case unanswered && l.absent:
		l.again++
	default:
		l.failed = append(l.failed, err)
	}
}

// expectAbsence says whether the app may be away from here on. What it has taken must still be answered.
func (l *load) expectAbsence(absent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.absent = absent
}

// sofar returns how many requests were answered.
func (l *load) sofar() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.answered
}

// await waits until n more requests were answered.
func (l *load) await(t *testing.T, n int) {
	t.Helper()
	want := l.sofar() + n
	eventually(t, 30*time.Second, fmt.Sprintf("%d answers under load", n), func() (bool, string) {
		got := l.sofar()
		return got >= want, fmt.Sprintf("%d of %d", got, want)
	})
}

func (l *load) end() {
	l.stop()
	l.done.Wait()
}

// verdict ends the load and fails the test for each request that failed.
func (l *load) verdict(t *testing.T) {
	t.Helper()
	l.end()
	t.Logf("under load: %d answered, %d sent again while there was no app, %d failed", l.answered, l.again, len(l.failed))
	for _, err := range l.failed[:min(len(l.failed), 5)] {
		t.Errorf("a request failed: %v", err)
	}
}
