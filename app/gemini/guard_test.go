package gemini_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/app/gemini"
)

// Each of these makes at least one SDK panic.
var unforeseen = []string{
	`null`,
	`{"candidates":[null]}`,
	`{"candidates":{}}`,
	`{"candidates":[{"content":{"parts":[null]},"finishReason":1}]}`,
	`{"candidates":[{"content":{"parts":[{"functionResponse":{"name":"` + canary + `","response":{}}}]},"finishReason":1}]}`,
}

// An answer may be whatever something on the way makes of it, and must not end the program.
func TestNoAnswerMakesACallPanic(t *testing.T) {
	for _, sdk := range gemini.SDKs() {
		for _, body := range unforeseen {
			host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.HasSuffix(r.URL.Path, ":streamGenerateContent") {
					script(w, r, func() {}, firstPiece, body)
					return
				}
				w.Write([]byte(body))
			}))
			client := newBackend(t, sdk, host.URL).Client(newKey(t, canary))
			if text, err := client.Generate(t.Context(), prompt); err != nil { // one of the SDKs may know what to do
				checkError(t, string(sdk)+", "+body, err, gemini.Error{Fault: gemini.FaultUnavailable, Status: 200})
			} else if text != "" {
				t.Errorf("%s, %s: %q", sdk, body, text)
			}
			pieces, err := collect(t.Context(), client, prompt)
			if len(pieces) != 1 || err != nil && gemini.FaultOf(err) != gemini.FaultTruncated {
				t.Errorf("%s, %s: %q, %v", sdk, body, pieces, err)
			}
			host.Close()
		}
	}
}

func TestAPanicOfTheCallerIsTheCallers(t *testing.T) {
	for _, sdk := range gemini.SDKs() {
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			script(w, r, func() {}, firstPiece, lastPiece)
		}))
		pieces := 0
		func() {
			defer func() {
				if p := recover(); p != "mine" {
					t.Errorf("%s: %v came out", sdk, p)
				}
			}()
			for range newBackend(t, sdk, host.URL).Client(newKey(t, canary)).Stream(t.Context(), prompt) {
				pieces++
				panic("mine")
			}
		}()
		if pieces != 1 {
			t.Errorf("%s: %d pieces", sdk, pieces)
		}
		host.Close()
	}
}
