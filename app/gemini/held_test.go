package gemini

import (
	"cmp"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// held is an answer whose body says text and then goes on saying more, or white space, until the request ends.
type held struct {
	status     int
	text, more string
}

func (h held) RoundTrip(r *http.Request) (*http.Response, error) {
	text := strings.NewReader(h.text)
	read := func(p []byte) (int, error) {
		if text.Len() > 0 {
			return text.Read(p)
		}
		select {
		case <-time.After(300 * time.Millisecond):
			return copy(p, cmp.Or(h.more, " ")), nil
		case <-r.Context().Done():
			return 0, r.Context().Err()
		}
	}
	header := http.Header{"Content-Type": {"application/json"}}
	return &http.Response{StatusCode: h.status, Header: header, Body: io.NopCloser(reader(read)), Request: r}, nil
}

type reader func(p []byte) (int, error)

func (f reader) Read(p []byte) (int, error) { return f(p) }

// eachHeld runs the test in a bubble for each SDK, with a client that gets that answer in the form that the SDK asks for.
func eachHeld(t *testing.T, h held, test func(t *testing.T, sdk SDK, c Client)) {
	for _, sdk := range SDKs() {
		synctest.Test(t, func(t *testing.T) {
			b, err := New(t.Context(), Config{SDK: sdk})
			if err != nil {
				t.Fatal(err)
			}
			b.http.Transport.(*carrier).next = roundTrip(func(r *http.Request) (*http.Response, error) {
				if r.URL.Query().Get("alt") == "sse" {
					return held{h.status, event(h.text), event(h.more)}.RoundTrip(r)
				}
				return h.RoundTrip(r)
			})
			test(t, sdk, b.Client(newKey(t, canary)))
		})
	}
}

// event is the server-sent event of what stands in a JSON array.
func event(text string) string {
	if text == "" {
		return ""
	}
	return "data: " + strings.Trim(text, "[],") + "\r\n\r\n"
}

// However the endpoint holds the body open, whoever asked has the whole answer.
func TestAnEndpointThatDoesNotEndItsStreamHoldsNobody(t *testing.T) {
	const last = `{"candidates":[{"content":{"parts":[{"text":"one"}]},"finishReason":"STOP"}]}`
	const empty = `{"candidates":[{"finishReason":"STOP"}]}`
	const failure = `{"error":{"code":503,"status":"UNAVAILABLE"}}`
	for _, test := range []struct {
		text, more string
		want       Fault
		took       time.Duration
	}{
		{"[" + last + "]", "", "", rest},
		{"[" + last, "", "", rest},
		{"[" + last, "," + empty, "", rest},
		{"[" + failure + "]", "", FaultUnavailable, 0},
		{"[" + failure, "", FaultUnavailable, 0},
	} {
		eachHeld(t, held{200, test.text, test.more}, func(t *testing.T, sdk SDK, c Client) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Hour)
			defer cancel()
			began, err := time.Now(), error(nil)
			for _, err = range c.Stream(ctx, "hello") {
				time.Sleep(time.Hour) // the caller's own time doesn't count
			}
			took := time.Since(began) - time.Hour
			if FaultOf(err) != test.want || (err == nil) != (test.want == "") || took != test.took {
				t.Errorf("%s, %s%s: %v after %v", sdk, test.text, test.more, err, took)
			}
		})
	}
}

// An error is told by its status at least, long before the caller's patience ends.
func TestAnErrorWhoseBodyStallsIsToldByItsStatus(t *testing.T) {
	for text, status := range map[string]int{"x": 503, `{"error":{"code":400,`: 400, `<html>`: 401} {
		eachHeld(t, held{status: status, text: text}, func(t *testing.T, sdk SDK, c Client) {
			want := classify(status, 0, nil, "").Fault
			ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
			defer cancel()
			for name, do := range map[string]func() error{
				"Generate": func() error { _, err := c.Generate(ctx, "hello"); return err },
				"Stream": func() (err error) {
					for _, err = range c.Stream(ctx, "hello") {
					}
					return err
				},
				"Probe": func() error { return c.Probe(ctx) },
			} {
				began := time.Now()
				err := do()
				e, ok := errors.AsType[*Error](err)
				if took := time.Since(began); !ok || e.Fault != want || e.Status != status || took != errorTimeout {
					t.Errorf("%s, %s, %d: %v after %v", sdk, name, status, err, took)
				}
			}
		})
	}
}

// What was read before the body stalled may be the whole error.
func TestAnErrorThatIsWholeBeforeItsBodyStallsIsReadAsSuch(t *testing.T) {
	const whole = `{"error":{"code":400,"details":[{"reason":"API_KEY_INVALID"}]}}`
	eachHeld(t, held{status: 400, text: whole}, func(t *testing.T, sdk SDK, c Client) {
		if _, err := c.Generate(t.Context(), "hello"); FaultOf(err) != FaultKey {
			t.Errorf("%s: %v", sdk, err)
		}
	})
}
