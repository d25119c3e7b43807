package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"unicode/utf8"

	"github.com/keyturn/keyturn/app/client"
)

// maxBody bounds a request's body, in bytes: some 200,000 words.
const maxBody = 1 << 20

// answer makes a handler that reads a prompt, has serve answer it, and counts how that went.
func (s *Server) answer(name string, serve func(ctx context.Context, w http.ResponseWriter, prompt string) outcome) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		end := s.requests.begin(name)
		how := internal // unless serve returns
		defer func() { end(how) }()
		ctx, cancel := context.WithTimeout(r.Context(), s.Call)
		defer cancel()
		prompt, problem := readPrompt(w, r)
		if problem != nil {
			how = problem.outcome
			problem.send(w)
			return
		}
		how = serve(ctx, w, prompt)
	}
}

func (s *Server) generate(ctx context.Context, w http.ResponseWriter, prompt string) outcome {
	answer, err := s.Client.Generate(ctx, prompt)
	if err != nil {
		return s.fail(ctx, w, err)
	}
	send(w, http.StatusOK, "application/json", struct {
		Text       string `json:"text"`
		Generation uint64 `json:"generation"`
	}{answer.Text, answer.Generation})
	return succeeded
}

// fail answers a request of which nothing was answered yet.
func (s *Server) fail(ctx context.Context, w http.ResponseWriter, err error) outcome {
	problem := s.judge(ctx, err)
	if problem.outcome != gone {
		problem.send(w)
	}
	return problem.outcome
}

func (s *Server) stream(ctx context.Context, w http.ResponseWriter, prompt string) outcome {
	events := &events{w: w}
	var last client.Answer
	for answer, err := range s.Client.Stream(ctx, prompt) {
		switch {
		case err != nil && !events.begun:
			return s.fail(ctx, w, err)
		case err != nil:
			problem := s.judge(ctx, err)
			if problem.outcome != gone {
				events.send("error", problem)
			}
			return problem.outcome
		}
		last = answer
		if answer.Text == "" {
			continue // an answer without text says its generation with a piece that has none
		}
		if events.send("", struct {
			Text string `json:"text"`
		}{answer.Text}) != nil {
			return gone
		}
	}
	if events.send("done", struct {
		Generation uint64 `json:"generation"`
	}{last.Generation}) != nil {
		return gone
	}
	return succeeded
}

// events writes server-sent events, each flushed on its own.
type events struct {
	w     http.ResponseWriter
	begun bool
}

// send writes an event. One without a name is a message, as the format has it.
func (e *events) send(name string, body any) error {
	if !e.begun {
		e.begun = true
		header := e.w.Header()
		header.Set("Content-Type", "text/event-stream")
		header.Set("Cache-Control", "no-store")
		header.Set("X-Accel-Buffering", "no") // a proxy would hold pieces back
	}
	var event bytes.Buffer
	if name != "" {
		event.WriteString("event: " + name + "\n")
	}
	event.WriteString("data: ")
	event.Write(encode(body)) // ends with a newline, and holds no other
	event.WriteByte('\n')
	if _, err := e.w.Write(event.Bytes()); err != nil {
		return err
	}
	return http.NewResponseController(e.w).Flush()
}

// send answers with status and body, in JSON.
func send(w http.ResponseWriter, status int, contentType string, body any) {
	w.Header().Set("Content-Type", contentType)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	w.Write(encode(body))
}

func encode(body any) []byte {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false) // it goes to no browser as HTML
	if err := encoder.Encode(body); err != nil {
		panic("server: " + err.Error()) // strings, numbers and times come here, and they always encode
	}
	return b.Bytes()
}

// readPrompt reads the one JSON document that the body must be, to its end: only then does net/http notice a caller who
// leaves.
func readPrompt(w http.ResponseWriter, r *http.Request) (string, *Problem) {
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/json" {
		return "", plain(http.StatusUnsupportedMediaType, "the body's Content-Type must be application/json")
	}
	if r.Header.Get("Content-Encoding") != "" {
		return "", plain(http.StatusUnsupportedMediaType, "the body must not be compressed")
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return "", unread(err)
	}
	var document struct {
		Prompt string `json:"prompt"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	err = d.Decode(&document)
	if err == nil {
		_, err = d.Token()
	}
	switch {
	case !errors.Is(err, io.EOF) || !utf8.Valid(body): // a decoder would mend what is no UTF-8, and send another prompt
		return "", plain(http.StatusBadRequest, `the body must be one JSON object, {"prompt":"…"}, with no other field, in UTF-8`)
	case document.Prompt == "":
		return "", plain(http.StatusBadRequest, `the "prompt" is missing or empty`)
	}
	return document.Prompt, nil
}

// unread says why a body could not be read.
func unread(err error) *Problem {
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return plain(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", maxBody))
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return plain(http.StatusRequestTimeout, "the body did not arrive in time")
	}
	return plain(http.StatusBadRequest, "the body broke off")
}
