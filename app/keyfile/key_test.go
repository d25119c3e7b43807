package keyfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"golang.org/x/net/http/httpguts"
)

func TestNewKeySaysWhyBytesAreNoKey(t *testing.T) {
	for content, want := range map[string]error{
		"":                                 ErrEmpty,
		"\n":                               ErrNewline,
		canary + "\n":                      ErrNewline,
		canary + "\r\n":                    ErrNewline,
		canary + "\r":                      ErrNoHeader,
		" " + canary:                       ErrNoHeader,
		canary + " ":                       ErrNoHeader,
		"two words":                        ErrNoHeader,
		"a\tb":                             ErrNoHeader,
		"a\x00b":                           ErrNoHeader,
		"a\x7fb":                           ErrNoHeader,
		"\xef\xbb\xbf" + canary:            ErrNoHeader, // a byte order mark
		"schlüssel":                        ErrNoHeader,
		"X: y\nHost: elsewhere":            ErrNoHeader,
		strings.Repeat("a", MaxSize+1):     ErrTooLong,
		canary:                             nil,
		"!~":                               nil,
		strings.Repeat("a", MaxSize):       nil,
		strings.Repeat("a", MaxSize) + " ": ErrTooLong,
	} {
		key, err := NewKey([]byte(content))
		if err != want {
			t.Errorf("%.20q: %v, want %v", content, err, want)
		}
		if err == nil && key.Reveal() != content || err != nil && !key.IsZero() {
			t.Errorf("%.20q became another key", content)
		}
	}
}

func TestAKeyOutlivesTheBytesThatItWasMadeFrom(t *testing.T) {
	b := []byte(canary)
	key := newKey(t, string(b))
	again, err := NewKey(b)
	clear(b)
	if err != nil || again.Reveal() != canary || !again.Equal(key) {
		t.Error("clearing the bytes changed the key")
	}
	if other := newKey(t, "another"); key.Equal(other) || key.Equal(Key{}) || !(Key{}).Equal(Key{}) {
		t.Error("different keys are equal, or the zero Key isn't equal to itself")
	}
	if !(Key{}).IsZero() || (Key{}).Reveal() != "" || key.IsZero() {
		t.Error("the zero Key is some key, or a key is none")
	}
}

// shown is what a program might print of the key in content, with these verbs of package fmt, by slog and as JSON. It makes the
// key itself, since fmt prints a closure by the address of its code, which depends on the place.
func shown(t testing.TB, content, verbs string) []string {
	key := newKey(t, content)
	type holder struct{ key Key }
	type open struct{ Key Key }
	var out []string
	for _, verb := range verbs {
		for _, flags := range []string{"%", "%+", "%#", "% ", "%010.3"} {
			for _, v := range []any{key, holder{key}, open{key}, []Key{key}, map[string]Key{"k": key}, Reading{Key: key}, error(wrapped{key})} {
				out = append(out, fmt.Sprintf(flags+string(verb), v))
			}
		}
	}
	var logged bytes.Buffer
	withoutTime := &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}
	for _, h := range []slog.Handler{slog.NewTextHandler(&logged, withoutTime), slog.NewJSONHandler(&logged, withoutTime)} {
		slog.New(h).Info("key", "key", key, "holder", holder{key}, "open", open{key}, "keys", []Key{key}, "reading", Reading{Key: key})
	}
	encoded, err := json.Marshal(map[string]any{"key": key, "holder": holder{key}, "open": open{key}, "reading": Reading{Key: key}})
	return append(out, logged.String(), string(encoded), fmt.Sprint(err))
}

// verbs are all of package fmt's but p, which prints addresses.
const verbs = "vsqxXdobcUeEfFgGtTw"

type wrapped struct{ key Key }

func (w wrapped) Error() string { return fmt.Sprintf("a call with %v failed", w.key) }

func TestAKeyIsNeverShown(t *testing.T) {
	for _, s := range shown(t, canary, verbs+"p") {
		for form, leak := range map[string]string{"plain": canary, "hex": fmt.Sprintf("%x", canary), "decimal": strings.Trim(fmt.Sprint([]byte(canary)), "[]")} {
			if strings.Contains(strings.ToLower(s), strings.ToLower(leak)) {
				t.Errorf("%s: %s", form, s)
			}
		}
	}
	if s := fmt.Sprintf("%v %+v %#v %s %d", newKey(t, canary), newKey(t, canary), newKey(t, canary), Key{}, Key{}); s != strings.TrimSpace(strings.Repeat(redacted+" ", 5)) {
		t.Errorf("a key prints as %s", s)
	}
}

// FuzzKey holds that whatever a file contains, NewKey's key may be sent in a header, its error is one of four that quote nothing,
// and nothing that a program prints depends on the key.
func FuzzKey(f *testing.F) {
	for _, seed := range []string{"", canary, canary + "\n", "a\r\nb: c", "\x00", "\xff\xfe", "ü", " ", strings.Repeat("a", MaxSize+1)} {
		f.Add([]byte(seed))
	}
	want := shown(f, "another-key", verbs)
	f.Fuzz(func(t *testing.T, b []byte) {
		key, err := NewKey(b)
		if err != nil {
			if !key.IsZero() {
				t.Error("an error comes with a key")
			}
			for _, reason := range []error{ErrEmpty, ErrTooLong, ErrNewline, ErrNoHeader} {
				if err == reason {
					return
				}
			}
			t.Fatalf("an error of another kind: %T", err)
		}
		value := key.Reveal()
		if value != string(b) || !httpguts.ValidHeaderFieldValue(value) || strings.TrimSpace(value) != value {
			t.Errorf("%q is no header's value", value)
		}
		for i, s := range shown(t, value, verbs) {
			if s != want[i] {
				t.Errorf("what is printed depends on the key: %s, %s", s, want[i])
			}
		}
	})
}

func TestReasonsAreSentencesThatNameTheMend(t *testing.T) {
	for _, err := range []error{ErrEmpty, ErrTooLong, ErrNewline, ErrNoHeader, ErrUnsettled, ErrMounted} {
		if !strings.Contains(err.Error(), ": ") {
			t.Errorf("%v: what is to be done?", err)
		}
	}
	if errors.Is(ErrEmpty, ErrNewline) {
		t.Error("reasons can't be told apart")
	}
}

const canary = "AIzaSyCANARY-0123456789_abcdefghijklmnop"

func newKey(t testing.TB, s string) Key {
	t.Helper()
	key, err := NewKey([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	return key
}
