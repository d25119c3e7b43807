package server

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"

	"github.com/keyturn/keyturn/app/client"
)

// answer makes a handler that reads a prompt, has serve answer it, and counts how that went.
func (s *Server) answer(name string, serve func(ctx context.Context, w http.ResponseWriter, prompt string) outcome) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		end := s.requests.begin(name)
		how := internal // unless serve returns
		defer func() { end(how) }()
		ctx, cancel := context.WithTimeout(r.Context(), s.Call)
		defer cancel()
		load := &load{all: s.calls}
		defer load.release()
		prompt, problem := s.prompt(load, w, r)
		if problem != nil {
			how = problem.outcome
			problem.send(w)
			return
		}
		if how = serve(ctx, w, prompt); how == succeeded {
			s.troubles.succeeded()
		}
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
