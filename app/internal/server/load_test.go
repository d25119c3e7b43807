package server_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/internal/server"
	"github.com/keyturn/keyturn/examples/pipetest"
)

// thinker is a client whose calls end only when the test says so.
type thinker struct {
	fake
	running, bytes atomic.Int64
	answer         chan struct{}
}

func newThinker() *thinker {
	k := &thinker{answer: make(chan struct{})}
	k.generate = func(_ context.Context, prompt string) (client.Answer, error) {
		k.running.Add(1)
		k.bytes.Add(int64(len(prompt)))
		<-k.answer
		k.running.Add(-1)
		k.bytes.Add(-int64(len(prompt)))
		return client.Answer{Text: "Blue.", Generation: 7}, nil
	}
	return k
}

// ofLength is a document whose prompt has n bytes.
func ofLength(n int) string { return `{"prompt":"` + strings.Repeat("a", n) + `"}` }

const mebibyte = 1 << 20

// With each at its largest, the calls that wait for Gemini took 5 MiB each, and Gemini may think for minutes.
func TestPromptsThatWaitForGeminiHaveABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newThinker()
		url, _, _ := serveInBubble(t, &k.fake, func(*server.Config) {})
		url += "/v1/generate"
		answers := make(chan answer, 1200)
		ask := func(n int, body string) {
			for range n {
				go func() { answers <- post(t, url, body) }()
			}
			synctest.Wait()
		}
		refused := func() (n int) {
			for len(answers) > 0 {
				a := <-answers
				if p := a.problem(t); p.Type != server.TypePrefix+"overload" || p.Status != 503 || a.header.Get("Retry-After") != "1" {
					t.Errorf("%+v, Retry-After %q", p, a.header.Get("Retry-After"))
				}
				n++
			}
			return n
		}

		ask(20, ofLength(mebibyte-100))
		if n, bytes := refused(), k.bytes.Load(); n != 9 || bytes > 12*mebibyte {
			t.Errorf("of 20 that are large %d are refused, and %d bytes wait", n, bytes)
		}
		ask(100, question)
		if n := refused(); n == 0 || k.running.Load() < 20 {
			t.Errorf("of 100 that are small %d are refused, and %d wait with the large", n, k.running.Load())
		}
		k.answer <- struct{}{}
		synctest.Wait()
		if a := <-answers; a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
		before := k.running.Load()
		ask(1, question)
		if n := refused(); n != 0 || k.running.Load() != before+1 {
			t.Error("a small prompt is refused although a call has ended")
		}
		close(k.answer)
		synctest.Wait()
		for len(answers) > 0 {
			<-answers
		}

		k.answer = make(chan struct{})
		ask(1200, question)
		if n := refused(); n < 176 || n > 190 {
			t.Errorf("of 1200 calls %d are refused", n)
		}
		close(k.answer)
		synctest.Wait()
		for len(answers) > 0 {
			<-answers
		}
	})
}

func TestAPromptWeighsWhatItTakesWhateverItIs(t *testing.T) {
	for _, test := range []struct {
		name, body string
		unknown    bool // how long it is
		fit        int64
	}{
		{"large", ofLength(mebibyte - 100), false, 11},
		{"small", question, false, 12},
		{"small, of a length that nobody has told", question, true, 12},
		{"large, of a length that nobody has told", ofLength(mebibyte - 100), true, 11},
		{"of what takes six bytes in JSON", `{"prompt":"` + strings.Repeat("<", mebibyte/2) + `"}`, false, 3},
		{"the most that there can be", `{"prompt":"` + strings.Repeat("&", mebibyte-100) + `"}`, false, 1},
		{"one byte too long", ofLength(mebibyte - 12), false, 0},
		{"no prompt", `{}`, false, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newThinker()
				url, _, _ := serveInBubble(t, &k.fake, func(*server.Config) {})
				for range 12 { // one after the other, as far as they are answered
					var body io.Reader = strings.NewReader(test.body)
					if test.unknown {
						body = io.MultiReader(body)
					}
					go func() {
						response, err := caller.Post(url+"/v1/generate", "application/json", body)
						if err != nil {
							t.Error(err)
							return
						}
						response.Body.Close()
						if status := response.StatusCode; test.fit > 0 && status != http.StatusOK && status != http.StatusServiceUnavailable {
							t.Error(response.Status)
						}
					}()
					synctest.Wait()
				}
				if n := k.running.Load(); n != test.fit {
					t.Errorf("%d at once, want %d", n, test.fit)
				}
				close(k.answer)
				synctest.Wait()
				if a := post(t, url+"/v1/generate", ofLength(mebibyte-100)); a.status != 200 {
					t.Errorf("when all have ended: %d %s", a.status, a.body)
				}
			})
		})
	}
}

// Twelve connections that announced a body and sent none kept everybody out for as long as a request may take to arrive.
func TestABodyWeighsWhatHasArrivedOfIt(t *testing.T) {
	for _, test := range []struct {
		name          string
		callers, sent int   // bytes, by each of them
		fit           int64 // prompts of a quarter of a mebibyte, beside them
	}{
		{"nothing", 100, 0, 41},
		{"some of it", 100, 50_000, 23},
		{"more than there is room for, by seven who are refused", 20, 900_000, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newThinker()
				url, _, _ := serveInBubble(t, &k.fake, func(*server.Config) {})
				for range test.callers {
					breakOff(t, url, test.sent)
				}
				for range 48 {
					go post(t, url+"/v1/generate", ofLength(mebibyte/4))
					synctest.Wait()
				}
				if n := k.running.Load(); n != test.fit {
					t.Errorf("%d at once, want %d", n, test.fit)
				}
				close(k.answer)
				synctest.Wait()
			})
		})
	}
}

// breakOff announces a body of a mebibyte and sends n bytes of it.
func breakOff(t *testing.T, url string, n int) {
	conn, err := pipetest.Dial(t.Context(), "tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_, err = fmt.Fprintf(conn, "POST /v1/generate HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", mebibyte, ofLength(mebibyte)[:n])
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}
