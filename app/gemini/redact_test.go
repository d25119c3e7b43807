package gemini

import (
	"net/url"
	"strings"
	"testing"
	"unicode"

	"github.com/keyturn/keyturn/examples/leaktest"
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
			text := before + form + after + form
			said := redact(text, key)
			if strings.Contains(said, key) || comesOut(said, text, form, key) {
				t.Errorf("%q comes out as %q", text, said)
			}
			if len(said) > maxMessage+len("…") || strings.ContainsAny(said, "\n\r\x00") {
				t.Errorf("not one short line: %q", said)
			}
		}
	})
}

// comesOut reports whether anything of a key that stands in text as form has it stands in said, however it is written.
// Text that was made up at random may hold a part of the key besides, which nobody promises to take out: then it is form
// alone that must not come out.
func comesOut(said, text, form, key string) bool {
	if _, torn := leaktest.Find(strings.ReplaceAll(text, form, redacted), key); torn {
		return strings.Contains(said, form)
	}
	_, found := leaktest.Find(said, key)
	return found
}
