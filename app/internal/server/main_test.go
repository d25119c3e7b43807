package server_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/internal/server"
	"github.com/keyturn/keyturn/examples/logtest"
	"github.com/keyturn/keyturn/examples/pipetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start")) // started by an import
}

const question = `{"prompt":"Why is the sky blue?"}`

// fake is a client that does what the test says. Without a word from it, it is ready and answers "Blue." in generation 7.
type fake struct {
	generate func(ctx context.Context, prompt string) (client.Answer, error)
	stream   func(ctx context.Context, prompt string) iter.Seq2[client.Answer, error]
	status   client.Status
}

func (f *fake) Generate(ctx context.Context, prompt string) (client.Answer, error) {
	if f.generate == nil {
		return client.Answer{Text: "Blue.", Generation: 7}, nil
	}
	return f.generate(ctx, prompt)
}

func (f *fake) Stream(ctx context.Context, prompt string) iter.Seq2[client.Answer, error] {
	if f.stream == nil {
		return pieces(nil, "Bl", "ue.")
	}
	return f.stream(ctx, prompt)
}

func (f *fake) Status() client.Status { return f.status }

// pieces is a stream of texts in generation 7 that ends with err.
func pieces(err error, texts ...string) iter.Seq2[client.Answer, error] {
	return func(yield func(client.Answer, error) bool) {
		for _, text := range texts {
			if !yield(client.Answer{Text: text, Generation: 7}, nil) {
				return
			}
		}
		if err != nil {
			yield(client.Answer{}, err)
		}
	}
}

func newServer(c server.Client, change ...func(*server.Config)) *server.Server {
	config := server.Config{Client: c, Build: server.Build{Version: "v1", Commit: "c", Go: "go"},
		Log: slog.New(slog.DiscardHandler), Call: time.Minute, Write: 10 * time.Second}
	for _, f := range change {
		f(&config)
	}
	return server.New(config)
}

// host serves c without the order of stopping that Serve keeps.
func host(t *testing.T, c server.Client, change ...func(*server.Config)) string {
	t.Helper()
	s := httptest.NewServer(newServer(c, change...))
	t.Cleanup(s.Close)
	return s.URL
}

// caller keeps no connection, so that none outlives its test.
var caller = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: pipetest.Dial}, Timeout: 20 * time.Second}

type answer struct {
	status int
	header http.Header
	body   string
}

func post(t *testing.T, url, body string) answer {
	t.Helper()
	return ask(t, http.MethodPost, url, body, http.Header{"Content-Type": {"application/json"}})
}

func get(t *testing.T, url string) answer {
	t.Helper()
	return ask(t, http.MethodGet, url, "", nil)
}

func ask(t *testing.T, method, url, body string, header http.Header) answer {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		request.Header = header
	}
	response, err := caller.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{response.StatusCode, response.Header, string(text)}
}

// problem reads the problem document that a must be.
func (a answer) problem(t *testing.T) server.Problem {
	t.Helper()
	if media := a.header.Get("Content-Type"); media != "application/problem+json" {
		t.Errorf("Content-Type %q of %q", media, a.body)
	}
	p := readProblem(t, a.body)
	if p.Status != a.status {
		t.Errorf("the document says %d, the status is %d", p.Status, a.status)
	}
	return p
}

func readProblem(t *testing.T, document string) server.Problem {
	t.Helper()
	var p server.Problem
	if err := json.Unmarshal([]byte(document), &p); err != nil {
		t.Fatalf("%v: %q", err, document)
	}
	if p.Type == "" || p.Title == "" || p.Detail == "" {
		t.Errorf("a problem must have type, title and detail: %q", document)
	}
	return p
}

// eventually waits until what holds, and says what it waited for if it never does.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("after 10 s still not: %s", what)
		case <-tick.C:
		}
	}
}

type page struct{ logtest.Page }

var errUnknown = errors.New("something that no package promises")

func logTo(p *page) func(*server.Config) {
	return func(c *server.Config) { c.Log = slog.New(slog.NewTextHandler(p, nil)) }
}
