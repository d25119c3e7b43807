package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// maxBody bounds a request's body, in bytes: some 200,000 words.
const maxBody = 1 << 20

// prompt reads the prompt of r. What has been read weighs until l is released.
func (s *Server) prompt(l *load, w http.ResponseWriter, r *http.Request) (string, *Problem) {
	if p := checkHeader(r.Header); p != nil {
		return "", p
	}
	body := http.MaxBytesReader(w, r.Body, maxBody)
	prompt, p := readPrompt(l, body)
	if p != nil && p.outcome == overload {
		io.Copy(io.Discard, body) // whoever still writes when the connection ends may not see the answer
	}
	return prompt, p
}

func checkHeader(h http.Header) *Problem {
	if media, _, err := mime.ParseMediaType(h.Get("Content-Type")); err != nil || media != "application/json" {
		return plain(http.StatusUnsupportedMediaType, "the body's Content-Type must be application/json")
	}
	if encoding := strings.Join(h.Values("Content-Encoding"), ","); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return plain(http.StatusUnsupportedMediaType, "the body must not be compressed")
	}
	return nil
}

// readPrompt reads the one JSON document that body must be, to its end: only then does net/http notice a caller who leaves.
func readPrompt(l *load, body io.Reader) (string, *Problem) {
	if !l.take(callWeight) {
		return "", unread(errNoRoom)
	}
	text, err := io.ReadAll(weighed{body, l})
	if err != nil {
		return "", unread(err)
	}
	prompt, ok := parsePrompt(text)
	switch {
	case !ok:
		return "", plain(http.StatusBadRequest, `the body must be one JSON object, {"prompt":"…"}, with no other field, in Unicode as UTF-8`)
	case prompt == "":
		return "", plain(http.StatusBadRequest, `the "prompt" is missing or empty`)
	case !l.take(growth(prompt)):
		return "", unread(errNoRoom)
	}
	return prompt, nil
}

// unread says why a body could not be read, or kept.
func unread(err error) *Problem {
	if errors.Is(err, errNoRoom) {
		return overloaded("as many calls run")
	}
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return plain(http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is larger than %d bytes", maxBody))
	}
	if e, ok := errors.AsType[net.Error](err); ok && e.Timeout() {
		return plain(http.StatusRequestTimeout, "the body did not arrive in time")
	}
	return plain(http.StatusBadRequest, "the body broke off")
}

// parsePrompt returns the prompt of text, or "" if that is an empty object. It goes by tokens: a struct would take PROMPT as
// well, and the last of two. What is no Unicode is not ok: a decoder mends it, and another prompt would be sent.
func parsePrompt(text []byte) (prompt string, ok bool) {
	var tokens []json.Token
	d := json.NewDecoder(bytes.NewReader(text))
	for len(tokens) <= 4 {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return "", false
		}
		tokens = append(tokens, token)
	}
	begin, end := json.Token(json.Delim('{')), json.Token(json.Delim('}'))
	if slices.Equal(tokens, []json.Token{begin, end}) {
		return "", true
	}
	if len(tokens) != 4 || tokens[0] != begin || tokens[1] != "prompt" || tokens[3] != end {
		return "", false
	}
	prompt, ok = tokens[2].(string)
	return prompt, ok && utf8.Valid(text) && paired(text)
}

// paired reports whether every surrogate that text, which is valid JSON, escapes is half of a pair.
func paired(text []byte) bool {
	for {
		i := bytes.IndexByte(text, '\\')
		if i < 0 {
			return true
		}
		text = text[i:]
		r, size := escape(text)
		if utf16.IsSurrogate(r) {
			low, lowSize := escape(text[size:])
			if utf16.DecodeRune(r, low) == unicode.ReplacementChar {
				return false
			}
			size += lowSize
		}
		text = text[size:]
	}
}

// escape returns what text begins with if that is \u and four digits, and how long the escape is.
func escape(text []byte) (r rune, size int) {
	if !bytes.HasPrefix(text, []byte(`\u`)) {
		return 0, 2
	}
	n, _ := strconv.ParseUint(string(text[2:6]), 16, 16)
	return rune(n), 6
}
