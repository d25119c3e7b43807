package gemini_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/gemini/geminitest"
)

const (
	firstPiece = `{"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":"one"}]}}]}`
	lastPiece  = `{"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":"two"}]},"finishReason":"STOP"}]}`
	usagePiece = `{"usageMetadata":{"totalTokenCount":7}}`
	sanePiece  = `{"promptFeedback":{"blockReason":"BLOCK_REASON_UNSPECIFIED"}}`   // the API's word for none
	fairPiece  = `{"promptFeedback":{"blockReason":"BLOCKED_REASON_UNSPECIFIED"}}` // genai's
	errorPiece = `{"error":{"code":503,"message":"The model is overloaded.","status":"UNAVAILABLE"}}`
)

// script serves every stream as these elements, in the form that the SDK asks for, and calls last before it ends.
func script(w http.ResponseWriter, r *http.Request, last func(), elements ...string) {
	before, between, after, end := "[", ",\r\n", "", "]"
	if r.URL.Query().Get("alt") == "sse" {
		before, between, after, end = "data: ", "data: ", "\r\n\r\n", ""
	}
	for _, e := range elements {
		fmt.Fprint(w, before, e, after)
		before = between
	}
	io.WriteString(w, end)
	http.NewResponseController(w).Flush()
	last()
}

func TestWhatComesAfterTheLastPieceCounts(t *testing.T) {
	tests := []struct {
		name     string
		elements []string
		want     gemini.Fault
		text     string
	}{
		{"nothing", []string{firstPiece, lastPiece}, "", "one two"},
		{"what the SDK can't read", []string{firstPiece, lastPiece, "\n"}, "", "one two"},
		{"usage", []string{firstPiece, lastPiece, usagePiece}, "", "one two"},
		{"a prompt that isn't blocked", []string{firstPiece, sanePiece, fairPiece, lastPiece}, "", "one two"},
		{"an error", []string{firstPiece, lastPiece, errorPiece}, gemini.FaultUnavailable, "one two"},
		{"only an error", []string{errorPiece}, gemini.FaultUnavailable, ""},
		{"only usage", []string{usagePiece}, gemini.FaultTruncated, ""},
		{"no piece at all", nil, gemini.FaultTruncated, ""},
	}
	for _, sdk := range gemini.SDKs() {
		for _, test := range tests {
			host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				script(w, r, func() {}, test.elements...)
			}))
			pieces, err := collect(t.Context(), newBackend(t, sdk, host.URL).Client(newKey(t, canary)), prompt)
			if gemini.FaultOf(err) != test.want || (err == nil) != (test.want == "") || strings.Join(pieces, " ") != test.text {
				t.Errorf("%s, %s: %q, %v", sdk, test.name, pieces, err)
			}
			host.Close()
		}
	}
}

func TestAStreamIsAskedForOnceEvenIfItCouldBeContinued(t *testing.T) {
	const checkpoint = `{"candidates":[{"index":0,"content":{"role":"model","parts":[{"text":"one"}]},"continuationToken":"dG9rZW4="}]}`
	for _, sdk := range gemini.SDKs() {
		var mu sync.Mutex
		requests := 0
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			requests++
			script(w, r, func() {}, checkpoint)
		}))
		_, err := collect(t.Context(), newBackend(t, sdk, host.URL).Client(newKey(t, canary)), prompt)
		if gemini.FaultOf(err) != gemini.FaultTruncated || requests != 1 {
			t.Errorf("%s: %d requests, %v", sdk, requests, err)
		}
		host.Close()
	}
}

func TestAFinishedStreamGivesItsConnectionBack(t *testing.T) {
	for _, sdk := range gemini.SDKs() {
		var mu sync.Mutex
		connections := map[string]bool{}
		read := make(chan struct{})
		host := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			connections[r.RemoteAddr] = true
			mu.Unlock()
			script(w, r, func() { <-read }, firstPiece, lastPiece)
		}))
		client := newBackend(t, sdk, host.URL).Client(newKey(t, canary))
		for range 3 {
			for piece, err := range client.Stream(t.Context(), prompt) {
				if err != nil {
					t.Error(err)
				}
				if piece == "two" {
					go func() { read <- struct{}{} }() // only now may the server end the body
				}
			}
		}
		if len(connections) != 1 {
			t.Errorf("%s: %d connections for three streams, one after the other", sdk, len(connections))
		}
		host.Close()
	}
}

func TestACutStreamSaysWhyAndPrintsNothing(t *testing.T) {
	var printed bytes.Buffer
	log.SetOutput(&printed)
	defer log.SetOutput(os.Stderr)
	for _, sdk := range gemini.SDKs() {
		api := geminitest.NewServer()
		api.Add(canary)
		api.SetStream(geminitest.Stream{Pieces: 2, End: geminitest.EndCut})
		_, err := collect(t.Context(), newBackend(t, sdk, api.URL).Client(newKey(t, canary)), prompt)
		var e *gemini.Error
		if !errors.As(err, &e) || e.Fault != gemini.FaultTruncated || !strings.Contains(e.Message, "broke off") {
			t.Errorf("%s: %#v", sdk, err)
		}
		api.Close()
	}
	if printed.Len() > 0 {
		t.Errorf("an SDK wrote to the process's log: %s", printed.String())
	}
}
