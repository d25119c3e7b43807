package geminitest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode/utf8"
)

// maxBody is the largest request body that is read, as at Google.
const maxBody = 20 << 20

// model is the one that GET models lists; any other is accepted as well.
const model = "gemini-3.8-flash"

// Answer is the text that the stand-in's model gives to prompt.
func Answer(prompt string) string { return fmt.Sprintf("answer to %q", prompt) }

// exchange is one request on its way through the server, with the settings that were in force when it arrived.
type exchange struct {
	Request
	ints    bool // enums as numbers, as generative-ai-go asks for them
	sse     bool
	latency time.Duration
	stream  Stream
	verdict Verdict
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	x, failed, wait := s.arrive(r)
	defer func() { // also when a cut stream panics
		s.mu.Lock()
		defer s.mu.Unlock()
		s.record.running--
		s.record.add(x.Request)
	}()
	prompt, readable := readPrompt(r) // in any case: net/http notices that a caller left only once the body is read
	x.Prompt = prompt[:min(len(prompt), 64)]
	if !pause(r, x.latency) {
		return
	}
	switch {
	case failed != nil:
		for k, v := range failed.header {
			w.Header()[k] = v
		}
		x.Status = failed.status
		w.WriteHeader(failed.status)
		io.WriteString(w, failed.body)
	case x.Refused != "":
		if wait > 0 {
			w.Header().Set("Retry-After", retryAfter(wait))
		}
		x.refuse(w, x.Refused, r.Header.Get("X-Goog-Api-Key"))
	default:
		x.answer(w, r, prompt, readable)
	}
}

// arrive judges the request: everything that later changes on the server leaves it alone.
func (s *Server) arrive(r *http.Request) (x *exchange, failed *failure, wait time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record.running++
	q := r.URL.Query()
	x = &exchange{latency: s.latency, stream: s.stream, verdict: s.verdict, sse: q.Get("alt") == "sse",
		ints: strings.Contains(q.Get("$alt"), "enum-encoding=int")}
	x.Arrived = time.Now()
	if path, ok := strings.CutPrefix(r.URL.Path, "/v1beta/models"); ok {
		if name, method, ok := strings.Cut(path, ":"); ok && name != "" {
			x.Method = method
		} else {
			x.Method = "models"
		}
	}
	if len(s.fail) > 0 {
		failed, s.fail = &s.fail[0], s.fail[1:]
		return x, failed, 0
	}
	x.Key, x.Refused, wait = s.judge(r)
	return x, nil, wait
}

// refuse sends an error. Where a JSON array was asked for, it comes as the array's only element.
func (x *exchange) refuse(w http.ResponseWriter, c Case, key string) {
	status, body := c.Response(key)
	x.Status = status
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	if x.Method == "streamGenerateContent" && !x.sse {
		body = fmt.Appendf(nil, "[%s]\n", strings.TrimSpace(string(body)))
	}
	w.Write(body)
}

func (x *exchange) answer(w http.ResponseWriter, r *http.Request, prompt string, readable bool) {
	if r.Method == http.MethodGet && x.Method == "models" {
		x.models(w, r)
		return
	}
	switch {
	case r.Method != http.MethodPost:
		x.refuse(w, NoModel, "")
	case !readable:
		x.refuse(w, BadRequest, "")
	case x.Method == "generateContent":
		x.send(w, x.response(Answer(prompt), true))
	case x.Method == "streamGenerateContent":
		x.sendStream(w, r, prompt)
	case x.Method == "countTokens":
		x.send(w, map[string]any{"totalTokens": tokens(prompt)})
	default:
		x.refuse(w, NoModel, "")
	}
}

func (x *exchange) models(w http.ResponseWriter, r *http.Request) {
	name := strings.Trim(strings.TrimPrefix(r.URL.Path, "/v1beta/models"), "/")
	info := map[string]any{"name": "models/" + cmp.Or(name, model), "version": "001", "displayName": "Gemini 3.8 Flash",
		"inputTokenLimit": 1048576, "outputTokenLimit": 65536,
		"supportedGenerationMethods": []string{"generateContent", "countTokens"}}
	if name == "" {
		info = map[string]any{"models": []any{info}, "nextPageToken": "CgYIARABGAE"}
	}
	x.send(w, info)
}

func (x *exchange) send(w http.ResponseWriter, body any) {
	x.Status = http.StatusOK
	w.Header().Set("Content-Type", contentType)
	_, err := w.Write(encode(body))
	x.Complete = err == nil
}

// sendStream sends the pieces as server-sent events or as a JSON array, each flushed on its own.
func (x *exchange) sendStream(w http.ResponseWriter, r *http.Request, prompt string) {
	before, between, after, end := "[", ",\r\n", "", "]"
	w.Header().Set("Content-Type", contentType)
	if x.sse {
		before, between, after, end = "data: ", "data: ", "\r\n\r\n", ""
		w.Header().Set("Content-Type", "text/event-stream")
	}
	x.Status = http.StatusOK
	flush := http.NewResponseController(w).Flush
	for i, element := range x.elements(prompt) {
		if i > 0 && !pause(r, x.stream.Interval) {
			return
		}
		if _, err := fmt.Fprintf(w, "%s%s%s", before, encode(element), after); err != nil || flush() != nil {
			return
		}
		before = between
	}
	if x.stream.End == EndCut {
		panic(http.ErrAbortHandler)
	}
	_, err := io.WriteString(w, end)
	x.Complete = err == nil && x.stream.End == EndFinished && r.Context().Err() == nil
}

func (x *exchange) elements(prompt string) []any {
	var all []any
	pieces := split(Answer(prompt), x.stream.Pieces)
	for i, text := range pieces {
		all = append(all, x.response(text, i == len(pieces)-1 && x.stream.End == EndFinished))
	}
	if x.stream.End == EndError {
		all = append(all, map[string]any{"error": x.stream.Case.apiError("")})
	}
	return all
}

// response is one GenerateContentResponse, the last of its answer or not.
func (x *exchange) response(text string, last bool) any {
	usage := map[string]any{"promptTokenCount": tokens(x.Prompt), "totalTokenCount": tokens(x.Prompt) + tokens(text)}
	if x.verdict.BlockReason != "" {
		return map[string]any{"promptFeedback": map[string]any{"blockReason": x.enum(blockReasons, x.verdict.BlockReason)},
			"usageMetadata": usage, "modelVersion": model}
	}
	candidate := map[string]any{"index": 0}
	if x.verdict.FinishReason == "" {
		candidate["content"] = map[string]any{"role": "model", "parts": []any{map[string]any{"text": text}}}
	}
	if last {
		candidate["finishReason"] = x.enum(finishReasons, cmp.Or(x.verdict.FinishReason, "STOP"))
	}
	return map[string]any{"candidates": []any{candidate}, "usageMetadata": usage, "modelVersion": model,
		"responseId": "c3RhbmQtaW4"}
}

// The numbers of the enums in google.ai.generativelanguage.v1beta.
var (
	finishReasons = []string{"FINISH_REASON_UNSPECIFIED", "STOP", "MAX_TOKENS", "SAFETY", "RECITATION", "OTHER", "LANGUAGE",
		"BLOCKLIST", "PROHIBITED_CONTENT", "SPII", "MALFORMED_FUNCTION_CALL"}
	blockReasons = []string{"BLOCK_REASON_UNSPECIFIED", "SAFETY", "OTHER", "BLOCKLIST", "PROHIBITED_CONTENT"}
)

func (x *exchange) enum(names []string, name string) any {
	if x.ints {
		for number, known := range names {
			if known == name {
				return number
			}
		}
	}
	return name
}

// readPrompt returns the text of the last content of a generateContent or countTokens request.
func readPrompt(r *http.Request) (string, bool) {
	type contents []struct {
		Parts []struct{ Text string }
	}
	var body struct {
		Contents               contents
		GenerateContentRequest struct{ Contents contents }
	}
	raw, err := io.ReadAll(io.LimitReader(r.Body, maxBody))
	if err != nil || json.Unmarshal(raw, &body) != nil {
		return "", false
	}
	all := append(body.GenerateContentRequest.Contents, body.Contents...)
	if len(all) == 0 {
		return "", false
	}
	var b strings.Builder
	for _, part := range all[len(all)-1].Parts {
		b.WriteString(part.Text)
	}
	return b.String(), true
}

// split cuts text into n parts of about the same length, between runes. Short texts have empty parts at their end.
func split(text string, n int) []string {
	runes := []rune(text)
	parts := make([]string, n)
	for i := range parts {
		parts[i] = string(runes[i*len(runes)/n : (i+1)*len(runes)/n])
	}
	return parts
}

// pause waits for d and reports whether the caller is still there.
func pause(r *http.Request, d time.Duration) bool {
	if d <= 0 {
		return r.Context().Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-r.Context().Done():
		return false
	}
}

func encode(v any) []byte {
	body, err := json.Marshal(v)
	if err != nil {
		panic("geminitest: " + err.Error()) // only maps, slices, strings and numbers come here
	}
	return body
}

func tokens(text string) int { return utf8.RuneCountInString(text)/4 + 1 }
