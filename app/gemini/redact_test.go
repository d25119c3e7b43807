package gemini

import (
	"net/url"
	"strings"
	"testing"
	"unicode"
)

// FuzzRedact: whatever the text and the key, the key doesn't come out, neither as it is nor as it stands in a URL.
func FuzzRedact(f *testing.F) {
	for _, text := range []string{"", "Consumer 'api_key:", "Post \"https://h/p?key=", "AIzaSyA-0123456789", "\x00\n", "\xff", strings.Repeat("ü", maxMessage)} {
		f.Add(text, canary, "'")
	}
	f.Add("AQ.Ab8", "AQ.Ab8RN6-canary_key.must-not-leak", "\u0000")
	f.Fuzz(func(t *testing.T, before, key, after string) {
		if len(key) < 16 || strings.ContainsFunc(key, func(r rune) bool {
			return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("-_.~+/", r)
		}) {
			t.Skip("no key of Google's looks like that")
		}
		for _, form := range []string{key, url.QueryEscape(key), url.PathEscape(key)} {
			said := redact(before+form+after+form, key)
			if strings.Contains(said, key) || strings.Contains(said, form) {
				t.Errorf("%q comes out as %q", before+form+after+form, said)
			}
			if len(said) > maxMessage+len("…") || strings.ContainsAny(said, "\n\r\x00") {
				t.Errorf("not one short line: %q", said)
			}
		}
	})
}
