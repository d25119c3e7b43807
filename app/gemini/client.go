package gemini

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"unicode/utf8"

	"github.com/keyturn/keyturn/app/keyfile"
)

// client is one key on a shared backend.
type client struct {
	backend *Backend
	key     keyfile.Key
}

// Generate implements Client.
func (c *client) Generate(ctx context.Context, prompt string) (string, error) {
	if !utf8.ValidString(prompt) {
		return "", errNotUTF8()
	}
	this := &call{key: c.key}
	inner := this.context(ctx)
	defer this.cancel()
	answer, err := c.backend.engine.generate(inner, prompt)
	if err != nil {
		return "", this.fail(ctx, err)
	}
	if err := answer.refused(); err != nil {
		return "", err
	}
	if answer.finish == "" {
		return "", &Error{Fault: FaultTruncated, Status: http.StatusOK, Message: "the answer has no finishReason"}
	}
	return answer.text, nil
}

// Stream implements Client.
func (c *client) Stream(ctx context.Context, prompt string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if !utf8.ValidString(prompt) {
			yield("", errNotUTF8())
			return
		}
		this := &call{key: c.key, tail: new(tail)}
		inner := this.context(ctx)
		defer this.cancel()
		complete := false
		defer func() { this.tail.end(complete) }()

		finished := false
		for piece, err := range c.backend.engine.stream(inner, prompt) {
			if err != nil && finished && this.tail.failure == nil {
				return // whatever it is, the whole answer was there
			}
			if err == nil {
				err = piece.refused()
			}
			if err != nil {
				yield("", this.failStream(ctx, err))
				return
			}
			if piece.finish != "" && !finished { // an endpoint may go on saying so
				finished = true
				this.tail.finish(this.cancel)
			}
			if piece.text != "" && !yield(piece.text, nil) {
				return
			}
		}
		if !finished || this.tail.failure != nil {
			yield("", this.failStream(ctx, nil))
			return
		}
		complete = true
	}
}

// Probe implements Client.
func (c *client) Probe(ctx context.Context) error {
	this := &call{key: c.key}
	inner := this.context(ctx)
	defer this.cancel()
	request, err := http.NewRequestWithContext(inner, http.MethodGet, c.backend.base+"/v1beta/models?pageSize=1", nil)
	if err != nil {
		return this.fail(ctx, err)
	}
	response, err := c.backend.http.Do(request)
	if err != nil {
		return this.fail(ctx, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxModels))
	if err != nil {
		return this.fail(ctx, err)
	}
	var list struct{ Models []json.RawMessage }
	if json.Unmarshal(body, &list) != nil || list.Models == nil {
		return &Error{Fault: FaultUnavailable, Status: response.StatusCode, Message: unreadable}
	}
	return nil
}

// maxModels is more than one entry of the list of models ever takes.
const maxModels = 1 << 20

// errNotUTF8 is ours because the SDKs differ: one fails, the other sends another prompt than the caller's.
func errNotUTF8() *Error {
	return &Error{Fault: FaultRequest, Message: "the prompt is not valid UTF-8"}
}

const unreadable = "the answer is not one of the Gemini API; a proxy may have sent it, or it broke off"

// refused returns the error of a prompt or an answer that the model would not give, or nil.
func (p piece) refused() error {
	switch {
	case p.blocked != "":
		return &Error{Fault: FaultRequest, Status: http.StatusOK, Reason: redactReason(p.blocked, ""),
			Message: "the prompt was blocked"}
	case p.finish == "" || p.finish == "STOP" || p.finish == "MAX_TOKENS":
		return nil
	case p.finish == "CONTINUATION":
		return &Error{Fault: FaultTruncated, Status: http.StatusOK, Reason: p.finish,
			Message: "the answer would go on in another request"}
	}
	return &Error{Fault: FaultRequest, Status: http.StatusOK, Reason: redactReason(p.finish, ""),
		Message: "the model did not give the whole answer"}
}

// fail turns the error of an SDK into the one that the caller sees. Of its text only what the network said is taken over.
func (c *call) fail(ctx context.Context, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	for _, ours := range []error{ErrClosed, errNoCall, errOtherHost} {
		if errors.Is(err, ours) {
			return ours
		}
	}
	if ctx.Err() != nil {
		return fmt.Errorf("gemini: the call was given up: %w", ctx.Err())
	}
	return &Error{Fault: FaultUnavailable, Status: c.status, Message: c.words(err)}
}

// failStream is fail for a stream, whose tail knows more than the SDK. err may be nil.
func (c *call) failStream(ctx context.Context, err error) error {
	switch {
	case c.tail.failure != nil:
		return c.tail.failure.judge(c.tail.failure.status(), 0, c.key.Reveal())
	case c.tail.body == nil: // the stream has not begun
		return c.fail(ctx, err)
	}
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	if ctx.Err() != nil {
		return c.fail(ctx, ctx.Err())
	}
	e := &Error{Fault: FaultTruncated, Status: c.status}
	if c.tail.broken != nil {
		e.Message = c.words(c.tail.broken)
	}
	return e
}

// words says what went wrong, without the URL that net/http puts before it.
func (c *call) words(err error) string {
	if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
		return "the connection broke off"
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		return redact(e.Err.Error(), c.key.Reveal())
	}
	if e, ok := errors.AsType[net.Error](err); ok {
		return redact(e.Error(), c.key.Reveal())
	}
	return unreadable
}
