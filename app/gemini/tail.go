package gemini

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"
)

// maxElement is the largest element of a stream that is looked at; an error is far smaller.
const maxElement = 64 << 10

// rest is how long what may come after a complete answer is read for.
const rest = time.Second

// tail watches the body of a stream as an SDK reads it. It keeps the first element that is an error, which
// generative-ai-go takes for an empty answer, and the error that reading ended with, which genai would print to the
// process's log. It belongs to one call, whose goroutine reads the body.
type tail struct {
	body    io.ReadCloser
	broken  error      // what reading ended with, if not io.EOF
	failure *wireError // the first element that is an error

	cancel context.CancelFunc // of the request, once the answer is complete
	left   time.Duration      // of rest

	element []byte // the element that is being read; empty once it is too large
	depth   int    // of braces
	quoted  bool   // within a string
	escaped bool   // after a backslash in a string
	large   bool
}

func (t *tail) watch(body io.ReadCloser) io.ReadCloser {
	t.body = body
	return t
}

// finish says that the answer is complete. What still comes is read for as long as rest: an endpoint that doesn't end the
// body must not hold the caller, who has everything.
func (t *tail) finish(cancel context.CancelFunc) { t.cancel, t.left = cancel, rest }

// Read implements io.Reader. A broken body looks as if it had ended, and so does one that goes on after an error.
func (t *tail) Read(p []byte) (int, error) {
	if t.failure != nil {
		return 0, io.EOF
	}
	n, err := t.readBody(p)
	t.scan(p[:n])
	if err != nil && !errors.Is(err, io.EOF) {
		t.broken, err = err, io.EOF
	}
	return n, err
}

func (t *tail) readBody(p []byte) (int, error) {
	if t.cancel == nil {
		return t.body.Read(p)
	}
	began := time.Now()
	defer func() { t.left -= time.Since(began) }() // the time that the caller takes for a piece doesn't count
	defer time.AfterFunc(t.left, t.cancel).Stop()
	return t.body.Read(p)
}

// Close does nothing: the call closes the body when it knows how the stream has ended.
func (t *tail) Close() error { return nil }

// end closes the body. If the stream was complete, it takes in the little that the SDK left, so that the connection can
// serve the next call.
func (t *tail) end(complete bool) {
	if t.body == nil {
		return
	}
	if complete && t.broken == nil {
		_, _ = io.CopyN(io.Discard, t, maxElement)
	}
	t.body.Close()
}

// scan finds the elements of a JSON array, or the data of server-sent events: whatever stands in balanced braces.
func (t *tail) scan(p []byte) {
	if t.failure != nil {
		return
	}
	start := 0 // of the bytes that belong to the element
	for i, c := range p {
		switch {
		case t.escaped:
			t.escaped = false
		case t.quoted:
			t.escaped, t.quoted = c == '\\', c != '"'
		case c == '"':
			t.quoted = t.depth > 0
		case c == '{':
			if t.depth == 0 {
				start = i
			}
			t.depth++
		case c == '}' && t.depth > 0:
			if t.depth--; t.depth == 0 {
				t.keep(p[start : i+1])
				t.judge()
			}
		}
	}
	if t.depth > 0 {
		t.keep(p[start:])
	}
}

func (t *tail) keep(p []byte) {
	if t.large = t.large || len(t.element)+len(p) > maxElement; t.large {
		t.element = t.element[:0]
		return
	}
	t.element = append(t.element, p...)
}

// judge looks at an element that is complete.
func (t *tail) judge() {
	if !t.large && bytes.Contains(t.element, []byte(`"error"`)) {
		t.failure = parseError(t.element)
	}
	t.element, t.large = t.element[:0], false
}
