package server_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/internal/server"
	"github.com/keyturn/keyturn/examples/pipetest"
)

// serve runs c on a free port. stop tells it to stop; ended waits for that and returns what Serve did.
func serve(t *testing.T, c *fake, change func(*server.Config)) (url string, stop func(), ended func() error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, "http://"+l.Addr().String(), c, change)
}

// serveInBubble is serve in a bubble of time.
func serveInBubble(t *testing.T, c *fake, change func(*server.Config)) (url string, stop func(), ended func() error) {
	t.Helper()
	l := pipetest.Listen(t)
	return serveOn(t, l, "http://"+l.Address(), c, change)
}

func serveOn(t *testing.T, l net.Listener, at string, c *fake, change func(*server.Config)) (url string, stop func(), ended func() error) {
	t.Helper()
	c.status.Ready = true
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- newServer(c, change).Serve(ctx, l) }()
	ended = sync.OnceValue(func() error { return <-done })
	t.Cleanup(func() { stop(); ended() })
	return at, stop, ended
}

func TestAServerThatStopsSaysSoAndLetsAStreamEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, say := dictated()
		url, stop, ended := serveInBubble(t, c, func(c *server.Config) { c.Linger, c.Drain = 2*time.Second, 20*time.Second })
		go func() { say <- "one" }()
		_, r := open(t, t.Context(), url)
		event(t, r)
		if a := get(t, url+"/readyz"); a.status != 200 {
			t.Fatalf("/readyz: %d %s", a.status, a.body)
		}
		stop()
		eventually(t, "/readyz says no", func() bool {
			a := get(t, url+"/readyz")
			return a.status == 503 && strings.Contains(a.body, "told to stop")
		})
		a := post(t, url+"/v1/generate", question)
		if a.status != 200 {
			t.Errorf("a request that comes before it stops accepting: %d %s", a.status, a.body)
		}
		eventually(t, "nobody new is accepted", func() bool {
			conn, err := pipetest.Dial(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
			if err == nil {
				conn.Close()
			}
			return err != nil
		})
		say <- "two"
		if got := event(t, r); got != `data: {"text":"two"}` {
			t.Errorf("%q", got)
		}
		close(say)
		if got := event(t, r); got != "event: done\ndata: {\"generation\":7}" {
			t.Errorf("%q", got)
		}
		if err := ended(); err != nil {
			t.Error(err)
		}
	})
}

func TestAConnectionOfAServerThatStopsEndsWithItsAnswer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		url, stop, ended := serveInBubble(t, &fake{}, func(c *server.Config) { c.Linger, c.Drain = time.Second, time.Second })
		conn, err := pipetest.Dial(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stop()
		eventually(t, "/readyz says no", func() bool { return get(t, url+"/readyz").status == 503 })
		io.WriteString(conn, "GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
		all, err := io.ReadAll(conn) // to the end, which is the server's
		if err != nil || !strings.Contains(string(all), "Connection: close\r\n") || !strings.HasSuffix(string(all), "ok\n") {
			t.Errorf("%q, %v", all, err)
		}
		if err := ended(); err != nil {
			t.Error(err)
		}
	})
}

// Whoever gets no word of it sends his next request on a connection that Shutdown closes under it.
func TestAConnectionEndsWithTheAnswerThatRanWhenTheStopCame(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked, say := make(chan struct{}), make(chan struct{})
		wait := func() client.Answer { asked <- struct{}{}; <-say; return client.Answer{Text: "Blue.", Generation: 7} }
		c := &fake{
			generate: func(context.Context, string) (client.Answer, error) { return wait(), nil },
			stream: func(context.Context, string) iter.Seq2[client.Answer, error] {
				return func(yield func(client.Answer, error) bool) { yield(wait(), nil) }
			},
		}
		url, stop, ended := serveInBubble(t, c, func(c *server.Config) { c.Linger, c.Drain = 2*time.Second, time.Second })
		answers := make(chan string)
		for _, path := range []string{"/v1/generate", "/v1/stream"} {
			conn, err := pipetest.Dial(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go func() {
				fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, len(question), question)
				all, err := io.ReadAll(conn) // to the end, which is the server's
				if err != nil {
					t.Error(err)
				}
				answers <- string(all)
			}()
			<-asked
		}
		stop()
		eventually(t, "/readyz says no", func() bool { return get(t, url+"/readyz").status == 503 })
		began := time.Now()
		close(say)
		for range 2 {
			all := <-answers
			if !strings.HasPrefix(all, "HTTP/1.1 200") || !strings.Contains(all, "\r\nConnection: close\r\n") || !strings.Contains(all, "Blue.") {
				t.Errorf("%q", all)
			}
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("the connections ended %v after the answers, and not with them", took)
		}
		if err := ended(); err != nil {
			t.Error(err)
		}
	})
}

func TestWhatOutlastsTheDrainIsCutAndTold(t *testing.T) {
	c, say := dictated()
	asked := make(chan struct{})
	c.generate = func(ctx context.Context, _ string) (client.Answer, error) {
		close(asked)
		<-ctx.Done()
		return client.Answer{}, ctx.Err()
	}
	var log page
	url, stop, ended := serve(t, c, func(c *server.Config) {
		c.Drain, c.Log = 50*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
	})
	go func() { say <- "one" }()
	_, r := open(t, t.Context(), url)
	event(t, r)
	whole := make(chan answer)
	go func() { whole <- post(t, url+"/v1/generate", question) }()
	<-asked
	stop()
	document, ok := strings.CutPrefix(event(t, r), "event: error\ndata: ")
	if p := readProblem(t, document); !ok || p.Status != 503 || p.Type != server.TypePrefix+"stopping" {
		t.Errorf("the stream: %+v", p)
	}
	if p := (<-whole).problem(t); p.Status != 503 || p.Type != server.TypePrefix+"stopping" {
		t.Errorf("the request: %+v", p)
	}
	if err := ended(); err != nil {
		t.Error(err)
	}
	if text := log.String(); strings.Count(text, "\n") != 2 || strings.Count(text, "running=2") != 2 || !strings.Contains(text, "cutting") {
		t.Errorf("one line that it stops and one that it cuts: %s", text)
	}
}

func TestAListenerThatBreaksEndsServe(t *testing.T) {
	l := &broken{make(chan struct{})}
	done := make(chan error, 1)
	go func() {
		done <- newServer(&fake{}, func(c *server.Config) { c.Linger, c.Drain = time.Hour, time.Hour }).Serve(t.Context(), l)
	}()
	close(l.now)
	if err := <-done; !errors.Is(err, errUnknown) {
		t.Errorf("%v", err)
	}
}

// broken is a listener that fails once told to.
type broken struct{ now chan struct{} }

func (b *broken) Accept() (net.Conn, error) { <-b.now; return nil, errUnknown }
func (b *broken) Close() error              { return nil }
func (b *broken) Addr() net.Addr            { return &net.TCPAddr{} }
