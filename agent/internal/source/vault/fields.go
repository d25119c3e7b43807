package vault

import (
	"bytes"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// fields are a secret as it is decoded. null leaves them nil.
type fields map[string]field

// field is one value; it is zero where that is no string.
type field struct{ value secret.Value }

// UnmarshalJSON keeps a string's bytes and nothing of any other value. encoding/json would leave the string behind, in
// memory that nobody can clear.
func (f *field) UnmarshalJSON(raw []byte) error {
	if len(raw) < 2 || raw[0] != '"' {
		return nil
	}
	text, err := unquote(raw[1 : len(raw)-1])
	defer clear(text)
	if err == nil {
		f.value = secret.New(text)
	}
	return err
}

// values returns the fields as package source wants them.
func (f fields) values() map[string]secret.Value {
	values := make(map[string]secret.Value, len(f))
	for name, field := range f {
		values[name] = field.value
	}
	return values
}

func (f fields) clear() {
	for _, field := range f {
		field.value.Clear()
	}
}

var errString = errors.New("not a JSON string")

// unquote returns the bytes that the inside of a JSON string stands for, in a slice of its own that never grows. Half a
// surrogate pair becomes U+FFFD, as in encoding/json.
func unquote(s []byte) ([]byte, error) {
	out := make([]byte, 0, len(s))
	for {
		i := bytes.IndexByte(s, '\\')
		if i < 0 {
			return append(out, s...), nil
		}
		out = append(out, s[:i]...)
		if len(s) < i+2 {
			return out, errString
		}
		kind := s[i+1]
		s = s[i+2:]
		if kind == 'u' {
			r, rest, ok := unquoteRune(s)
			if !ok {
				return out, errString
			}
			out, s = utf8.AppendRune(out, r), rest
			continue
		}
		c := bytes.IndexByte([]byte(`"\/bfnrt`), kind)
		if c < 0 {
			return out, errString
		}
		out = append(out, "\"\\/\b\f\n\r\t"[c])
	}
}

// unquoteRune reads four hexadecimal digits, and a second \uXXXX if they are the first half of a pair.
func unquoteRune(s []byte) (r rune, rest []byte, ok bool) {
	first, ok := hex4(s)
	if !ok {
		return 0, nil, false
	}
	s = s[4:]
	if !utf16.IsSurrogate(first) {
		return first, s, true
	}
	if after, found := bytes.CutPrefix(s, []byte(`\u`)); found {
		if second, ok := hex4(after); ok {
			if r := utf16.DecodeRune(first, second); r != utf8.RuneError {
				return r, after[4:], true
			}
		}
	}
	return utf8.RuneError, s, true
}

func hex4(s []byte) (rune, bool) {
	if len(s) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s[:4]), 16, 16)
	return rune(n), err == nil
}
