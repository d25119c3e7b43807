package control

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// loop is a Loop that notes what it is asked and answers as it was told.
type loop struct {
	mu      sync.Mutex
	asked   []any
	outcome turn.Outcome
	file    turn.FileStatus
	err     error
	status  turn.Status
	hang    bool // Refresh waits for its context
}

func (l *loop) Refresh(ctx context.Context, file string, have secret.Identity, refused bool) (turn.Outcome, turn.FileStatus, error) {
	l.note(RefreshRequest{file, have, refused})
	if l.hang {
		<-ctx.Done()
		return "", turn.FileStatus{}, ctx.Err()
	}
	return l.outcome, l.file, l.err
}

func (l *loop) Acknowledge(file string, id secret.Identity, at time.Time) error {
	l.note(AckRequest{file, id, at})
	return l.err
}

func (l *loop) Status() turn.Status { return l.status }

func (l *loop) note(what any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked = append(l.asked, what)
}

func (l *loop) last(t *testing.T) any {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.asked) == 0 {
		t.Fatal("the loop was asked nothing")
	}
	return l.asked[len(l.asked)-1]
}

func (l *loop) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asked)
}

// serve starts a server on a socket in a directory of its own, and stops it with the test.
func serve(t *testing.T, l Loop) (s *Server, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "agent.sock")
	return serveAt(t, l, path), path
}

func serveAt(t *testing.T, l Loop, path string) *Server {
	t.Helper()
	s := New(l, slog.New(slog.NewTextHandler(t.Output(), nil)))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, path, locked) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	eventually(t, "somebody answers", func() bool { return answers(path) })
	return s
}

// locked is a directory that nobody replaces.
func locked() bool { return true }

func answers(path string) bool {
	c, err := net.Dial("unix", path)
	if err == nil {
		c.Close()
	}
	return err == nil
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); !holds(); {
		select {
		case <-deadline:
			t.Fatalf("after 10 s still not: %s", what)
		case <-tick.C:
		}
	}
}

func over(path string) *http.Client {
	return &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
}

// ask sends one request and returns the answer.
func ask(t *testing.T, socket, method, path, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://agent"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	response, err := over(socket).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text)
}

const refreshBody = `{"file":"gemini-api-key","identity":{"inode":7,"mtime_ns":1700000000123456789},"refused":true}`

var identity = secret.Identity{Inode: 7, ModTime: 1700000000123456789}

// The app speaks the same words from its side, and imports nothing of this: the letters are the contract.
func TestARefreshIsAskedForAndAnsweredToTheLetter(t *testing.T) {
	l := &loop{}
	_, path := serve(t, l)
	read := time.Now()
	version := secret.Version{Number: 4, Created: read}
	for _, test := range []struct {
		outcome turn.Outcome
		file    turn.FileStatus
		want    string
	}{
		{turn.Published, turn.FileStatus{Rendered: true, Read: read, Published: version, Identity: secret.Identity{Inode: 8, ModTime: 9}},
			`{"outcome":"published","version":"4","identity":{"inode":8,"mtime_ns":9}}`},
		{turn.Unchanged, turn.FileStatus{Rendered: true, Read: read, Published: version, Identity: identity},
			`{"outcome":"unchanged","version":"4","identity":{"inode":7,"mtime_ns":1700000000123456789}}`},
		{turn.Held, turn.FileStatus{HeldReason: "Gemini refuses the key: HTTP 400"},
			`{"outcome":"held","reason":"Gemini refuses the key: HTTP 400","identity":{"inode":0,"mtime_ns":0}}`},
		{turn.Unreachable, turn.FileStatus{Reason: "Vault is sealed: unseal it"},
			`{"outcome":"unreachable","reason":"Vault is sealed: unseal it","identity":{"inode":0,"mtime_ns":0}}`},
	} {
		l.outcome, l.file = test.outcome, test.file
		if status, answer := ask(t, path, "POST", "/refresh", refreshBody); status != 200 || answer != test.want+"\n" {
			t.Errorf("%s: %d %s", test.outcome, status, answer)
		}
		if got := l.last(t); got != (RefreshRequest{"gemini-api-key", identity, true}) {
			t.Errorf("the loop was asked %+v", got)
		}
	}
	l.err = turn.ErrNoFile
	if status, answer := ask(t, path, "POST", "/refresh", `{"file":"x"}`); status != 404 || !strings.Contains(answer, "AGENT_SECRETS") {
		t.Errorf("no such file: %d %s", status, answer)
	}
}

func TestAnAcknowledgementIsTakenOrCounted(t *testing.T) {
	const body = `{"file":"gemini-api-key","identity":{"inode":7,"mtime_ns":1700000000123456789},"at":"2026-11-24T10:00:00Z"}`
	l := &loop{}
	s, path := serve(t, l)
	if status, answer := ask(t, path, "POST", "/ack", body); status != 204 || answer != "" {
		t.Errorf("%d %s", status, answer)
	}
	if got := l.last(t); got != (AckRequest{"gemini-api-key", identity, time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)}) {
		t.Errorf("the loop was told %+v", got)
	}
	for err, want := range map[error]int{turn.ErrNotInForce: 409, turn.ErrNoFile: 404} {
		l.err = err
		if status, _ := ask(t, path, "POST", "/ack", body); status != want {
			t.Errorf("%v: %d", err, status)
		}
	}
	if n := s.IgnoredAcks(); n != 2 {
		t.Errorf("%d acknowledgements were ignored, want 2", n)
	}
}

func TestWhatIsNoRequestChangesNothing(t *testing.T) {
	l := &loop{}
	_, path := serve(t, l)
	for _, test := range []struct {
		method, path, body string
		want               int
	}{
		{"POST", "/refresh", "", 400},
		{"POST", "/refresh", "null garbage", 400},
		{"POST", "/refresh", `{"file":7}`, 400},
		{"POST", "/refresh", `{"file":"gemini-api-key","key":"x"}`, 400},
		{"POST", "/refresh", refreshBody + refreshBody, 400},
		{"POST", "/refresh", `{"file":"` + strings.Repeat("x", maxBody) + `"}`, 413},
		{"POST", "/ack", `{"file":"gemini-api-key","at":"yesterday"}`, 400},
		{"POST", "/ack", `{"file":"gemini-api-key"}`, 400},
		{"POST", "/ack", `{"file":"` + strings.Repeat("x", maxBody) + `"}`, 413},
		{"GET", "/refresh", "", 405},
		{"POST", "/status", "", 405},
		{"PUT", "/ack", "", 405},
		{"GET", "/", "", 404},
		{"GET", "/metrics", "", 404},
	} {
		if status, answer := ask(t, path, test.method, test.path, test.body); status != test.want || strings.Count(answer, "\n") > 1 {
			t.Errorf("%s %s %.40s: %d %s, want %d", test.method, test.path, test.body, status, answer, test.want)
		}
	}
	if n := l.count(); n != 0 {
		t.Errorf("the loop was asked %d times", n)
	}
}

func TestWhoWaitsForARefreshIsSentAwayAtTheEnd(t *testing.T) {
	before := goleak.IgnoreCurrent()
	l := &loop{hang: true}
	path := filepath.Join(t.TempDir(), "agent.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(l, slog.New(slog.DiscardHandler)).Serve(ctx, path, locked) }()
	eventually(t, "the socket is there", func() bool { return answers(path) })
	status := make(chan int)
	go func() {
		code, _ := ask(t, path, "POST", "/refresh", refreshBody)
		status <- code
	}()
	eventually(t, "the refresh is under way", func() bool { return l.count() == 1 })
	cancel()
	if code := <-status; code != http.StatusGatewayTimeout {
		t.Errorf("%d", code)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket stays behind: %v", err)
	}
	goleak.VerifyNone(t, before)
}

// FuzzRequests: whatever is sent is answered with a 2xx that the loop was asked for, or with a 4xx that it wasn't.
func FuzzRequests(f *testing.F) {
	f.Add("/refresh", []byte(refreshBody))
	f.Add("/ack", []byte(`{"file":"k","identity":{"inode":1,"mtime_ns":-1},"at":"2026-11-24T10:00:00Z"}`))
	f.Add("/ack", []byte(`{"file":"\u0000","identity":{"inode":1e99},"at":0}`))
	f.Add("/refresh", []byte(strings.Repeat("[", 10_000)))
	f.Fuzz(func(t *testing.T, path string, body []byte) {
		l := &loop{outcome: turn.Unchanged}
		target := "/refresh"
		if path == "/ack" {
			target = path
		}
		w := &recorder{header: http.Header{}}
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http://agent"+target, strings.NewReader(string(body)))
		if err != nil {
			t.Fatal(err)
		}
		New(l, slog.New(slog.DiscardHandler)).handler().ServeHTTP(w, r)
		asked := l.count() == 1
		if good := w.status < 300; good != asked || !good && (w.status < 400 || w.status > 499) {
			t.Errorf("%s %q: HTTP %d, and the loop was asked: %v", target, body, w.status, asked)
		}
	})
}

// recorder is what of httptest's a fuzz target needs, without its copies.
type recorder struct {
	header http.Header
	status int
}

func (r *recorder) Header() http.Header { return r.header }

func (r *recorder) WriteHeader(status int) { r.status = status }

func (r *recorder) Write(b []byte) (int, error) {
	if r.status == 0 {
		r.status = 200
	}
	return len(b), nil
}
