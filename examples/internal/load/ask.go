package load

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// maxAnswer is the most bytes of an answer that are read.
const maxAnswer = 1 << 20

type asker struct {
	config Config
	http   *http.Client
}

func (a *asker) answered(r *Record) {
	if a.config.Answered != nil {
		a.config.Answered(*r)
	}
}

// ask makes the request and completes its record.
func (a *asker) ask(ctx context.Context, r *Record) {
	text, err := a.request(ctx, r)
	r.Done = time.Now()
	if r.First.IsZero() {
		r.First = r.Done
	}
	switch {
	case err != nil:
		r.Fault = err.Error()
	case text == "":
		r.Fault = "the answer is empty"
	case a.config.Expect != nil && text != a.config.Expect(r.ID):
		r.Fault = fmt.Sprintf("wrong answer: %.80q", text)
	}
	a.answered(r)
}

func (a *asker) request(ctx context.Context, r *Record) (text string, err error) {
	path := "/v1/generate"
	if r.Stream {
		path = "/v1/stream"
	}
	body, err := json.Marshal(map[string]string{"prompt": a.config.Prompt(r.ID)})
	if err != nil {
		return "", err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, a.config.URL+path, bytes.NewReader(body))
	if err != nil {
		return "", err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := a.http.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	limited := io.LimitReader(response.Body, maxAnswer)
	if response.StatusCode != http.StatusOK {
		document, _ := io.ReadAll(limited) // the status says enough
		return "", fmt.Errorf("HTTP %d: %s", response.StatusCode, problem(document))
	}
	if r.Stream {
		return readStream(limited, r)
	}
	var answer struct {
		Text       string
		Generation uint64
	}
	if err := json.NewDecoder(limited).Decode(&answer); err != nil {
		return "", fmt.Errorf("the answer is not the JSON that it should be: %w", err)
	}
	io.Copy(io.Discard, limited) // to its end, so that the connection is used again
	r.Generation = answer.Generation
	return answer.Text, nil
}

var errUnfinished = errors.New("the stream ended without its done event")

// readStream reads server-sent events. Only a done event makes a stream a success.
func readStream(body io.Reader, r *Record) (text string, err error) {
	var all strings.Builder
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, maxAnswer)
	event, data := "", ""
	for lines.Scan() {
		line := lines.Text()
		if line == "" { // the end of an event
			if done, err := take(event, data, &all, r); done || err != nil {
				io.Copy(io.Discard, body)
				return all.String(), err
			}
			event, data = "", ""
			continue
		}
		switch field, value, _ := strings.Cut(line, ":"); field {
		case "event":
			event = strings.TrimPrefix(value, " ")
		case "data":
			data += strings.TrimPrefix(value, " ")
		}
	}
	if err := lines.Err(); err != nil {
		return "", fmt.Errorf("the stream broke: %w", err)
	}
	return "", errUnfinished
}

// take handles one event of a stream.
func take(event, data string, all *strings.Builder, r *Record) (done bool, err error) {
	var piece struct {
		Text       string
		Generation uint64
	}
	switch {
	case data == "" && event == "":
		return false, nil
	case event == "error":
		return false, fmt.Errorf("the stream ended with an error: %s", problem([]byte(data)))
	case event != "" && event != "done":
		return false, nil
	}
	if err := json.Unmarshal([]byte(data), &piece); err != nil {
		return false, fmt.Errorf("an event is not the JSON that it should be: %w", err)
	}
	if event == "done" {
		r.Generation = piece.Generation
		return true, nil
	}
	if r.First.IsZero() {
		r.First = time.Now()
	}
	all.WriteString(piece.Text)
	return false, nil
}

// problem returns what a problem document (RFC 9457) says, or the beginning of what isn't one.
func problem(document []byte) string {
	var p struct{ Title, Detail string }
	if json.Unmarshal(document, &p) == nil && p.Title+p.Detail != "" {
		return strings.Trim(p.Title+": "+p.Detail, ": ")
	}
	return fmt.Sprintf("%.200s", bytes.TrimSpace(document))
}
