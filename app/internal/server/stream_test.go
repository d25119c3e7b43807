package server_test

import (
	"bufio"
	"context"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/internal/server"
)

// open starts a stream and returns its reader. The body ends with the test.
func open(t *testing.T, ctx context.Context, url string) (*http.Response, *bufio.Reader) {
	t.Helper()
	request, err := http.NewRequestWithContext(ctx, "POST", url+"/v1/stream", strings.NewReader(question))
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := caller.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response, bufio.NewReader(response.Body)
}

// event reads one event, without the empty line that ends it.
func event(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var b strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ends with %v after %q", err, b.String()+line)
		}
		if line == "\n" {
			return strings.TrimSuffix(b.String(), "\n")
		}
		b.WriteString(line)
	}
}

// dictated is a client whose stream says what is sent to it, and ends when the channel is closed or its context ends.
func dictated() (*fake, chan<- string) {
	said := make(chan string)
	return &fake{stream: func(ctx context.Context, _ string) iter.Seq2[client.Answer, error] {
		return func(yield func(client.Answer, error) bool) {
			for {
				select {
				case text, ok := <-said:
					if !ok || !yield(client.Answer{Text: text, Generation: 7}, nil) {
						return
					}
				case <-ctx.Done():
					yield(client.Answer{}, ctx.Err())
					return
				}
			}
		}
	}}, said
}

func TestAPieceReachesTheCallerBeforeTheNextOneIsThere(t *testing.T) {
	c, say := dictated()
	url := host(t, c)
	go func() { say <- "one" }() // a stream's headers come with its first piece
	response, r := open(t, t.Context(), url)
	if response.StatusCode != 200 || response.Header.Get("Content-Type") != "text/event-stream" || response.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %v", response.Status, response.Header)
	}
	if got := event(t, r); got != `data: {"text":"one"}` {
		t.Errorf("%q", got)
	}
	for _, text := range []string{"two", "three"} {
		say <- text
		if got := event(t, r); got != `data: {"text":"`+text+`"}` {
			t.Errorf("%q", got)
		}
	}
	close(say)
	if got := event(t, r); got != "event: done\ndata: {\"generation\":7}" {
		t.Errorf("%q", got)
	}
	if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
		t.Errorf("after the end: %q, %v", rest, err)
	}
}

func TestAPieceIsOneEventWhateverItHolds(t *testing.T) {
	const text = "a\n\nevent: done\r\ndata: {}\n\n<b>\u2028\x00"
	url := host(t, &fake{stream: func(context.Context, string) iter.Seq2[client.Answer, error] { return pieces(nil, text) }})
	a := post(t, url+"/v1/stream", question)
	const want = `data: {"text":"a\n\nevent: done\r\ndata: {}\n\n<b>\u2028\u0000"}` + "\n\n" + `event: done` + "\n" + `data: {"generation":7}` + "\n\n"
	if a.body != want {
		t.Errorf("%q", a.body)
	}
}

func TestAnAnswerWithoutTextIsDone(t *testing.T) {
	url := host(t, &fake{stream: func(context.Context, string) iter.Seq2[client.Answer, error] { return pieces(nil, "") }})
	a := post(t, url+"/v1/stream", question)
	if a.status != 200 || a.body != "event: done\ndata: {\"generation\":7}\n\n" {
		t.Errorf("%d %q", a.status, a.body)
	}
}

func TestACallerWhoLeavesEndsTheCall(t *testing.T) {
	ended := make(chan struct{}, 2)
	wait := func(ctx context.Context) error {
		<-ctx.Done()
		ended <- struct{}{}
		return ctx.Err()
	}
	url := host(t, &fake{
		generate: func(ctx context.Context, _ string) (client.Answer, error) { return client.Answer{}, wait(ctx) },
		stream: func(ctx context.Context, _ string) iter.Seq2[client.Answer, error] {
			return func(yield func(client.Answer, error) bool) {
				yield(client.Answer{Text: "one"}, nil)
				yield(client.Answer{}, wait(ctx))
			}
		},
	})
	ctx, leave := context.WithCancel(t.Context())
	_, r := open(t, ctx, url)
	event(t, r)
	leave()
	<-ended

	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "+
		"33\r\n\r\n"+question)
	conn.Close()
	<-ended
	for _, method := range []string{"stream", "generate"} {
		eventually(t, method+" counts a caller who left", func() bool {
			return strings.Contains(get(t, url+"/metrics").body, `keyturn_app_requests_total{method="`+method+`",outcome="gone"} 1`)
		})
	}
}

func TestACallerWhoStopsReadingIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		given := make(chan struct{})
		url, _, _ := serveInBubble(t, &fake{stream: func(context.Context, string) iter.Seq2[client.Answer, error] {
			return func(yield func(client.Answer, error) bool) {
				for yield(client.Answer{Text: strings.Repeat("a", 1<<20)}, nil) {
				}
				close(given)
			}
		}}, func(c *server.Config) { c.Write = 50 * time.Millisecond })
		_, r := open(t, t.Context(), url)
		if _, err := r.ReadByte(); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		<-given
		if took := time.Since(began); took > 50*time.Millisecond {
			t.Errorf("it was given up after %v", took)
		}
	})
}

func TestAnAnswerThatTakesTooLongIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, say := dictated()
		c.generate = func(ctx context.Context, _ string) (client.Answer, error) {
			<-ctx.Done()
			return client.Answer{}, ctx.Err()
		}
		url, _, _ := serveInBubble(t, c, func(c *server.Config) { c.Call = 50 * time.Millisecond })
		if p := post(t, url+"/v1/generate", question).problem(t); p.Status != 504 || p.Type != server.TypePrefix+"timeout" {
			t.Errorf("%+v", p)
		}
		go func() { say <- "one" }()
		a := post(t, url+"/v1/stream", question)
		if _, document, ok := strings.Cut(a.body, "event: error\ndata: "); a.status != 200 || !ok || readProblem(t, document).Status != 504 {
			t.Errorf("%d %q", a.status, a.body)
		}
	})
}
