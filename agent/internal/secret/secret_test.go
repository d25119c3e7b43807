package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"
)

// A secret that sits in a struct, a pointer, an error or a log line prints nowhere, in no base.
func TestValuePrintsNowhere(t *testing.T) {
	const canary = "AQ.canary-9f3a"
	type wrapper struct {
		Public  Value
		private Value
	}
	v := New([]byte(canary))
	w := wrapper{v, v}

	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%b", "%o", "%c", "%U", "%p"} {
		fmt.Fprintf(&out, verb+" "+verb+" "+verb+"\n", v, w, &w)
		fmt.Fprintf(&out, verb+"\n", []Value{v})
	}
	for _, x := range []any{v, w, &w, map[string]Value{"k": v}} {
		b, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(b)
		slog.New(slog.NewTextHandler(&out, nil)).Info("x", "value", x)
		slog.New(slog.NewJSONHandler(&out, nil)).Info("x", "value", x)
	}
	fmt.Fprintln(&out, fmt.Errorf("wrapped: %v", v))

	if n := strings.Count(out.String(), redacted); n < 20 {
		t.Errorf("%q was printed %d times, so this test looked at nothing", redacted, n)
	}
	assertAbsent(t, out.String(), canary)
}

func assertAbsent(t *testing.T, out, canary string) {
	t.Helper()
	forms := map[string]string{
		"raw":     canary,
		"hex":     fmt.Sprintf("%x", canary),
		"HEX":     fmt.Sprintf("%X", canary),
		"decimal": strings.Trim(fmt.Sprint([]byte(canary)), "[]"),
	}
	for form, s := range forms {
		if strings.Contains(out, s) {
			t.Errorf("the secret was printed (%s)", form)
		}
	}
}

func TestValueOwnsItsBytes(t *testing.T) {
	b := []byte("one")
	v := New(b)
	b[0] = 'X'
	if got := string(v.Reveal()); got != "one" {
		t.Errorf("after the caller changed its bytes the value is %q, want one", got)
	}

	same := v
	if !v.Equal(New([]byte("one"))) || v.Equal(New([]byte("two"))) || v.Equal(Value{}) || New(nil).Equal(New([]byte("a"))) {
		t.Error("Equal doesn't compare by content")
	}
	kept := v.Reveal()
	v.Clear()
	if !same.IsZero() || string(kept) != "\x00\x00\x00" {
		t.Error("Clear left the bytes of a copy in place")
	}
	v.Clear()
	Value{}.Clear()
	if New([]byte{}).IsZero() {
		t.Error("an empty secret counts as none")
	}
}

func TestVersionsAreOrderedByCreation(t *testing.T) {
	at := func(n int, s int64) Version { return Version{n, time.Unix(s, 0)} }
	for _, c := range []struct {
		what string
		v, w Version
		want bool
	}{
		{"an older standby's answer", at(1, 10), at(2, 20), true},
		{"the newer one", at(2, 20), at(1, 10), false},
		{"the same", at(2, 20), at(2, 20), false},
		{"a count that was reset", at(1, 30), at(9, 20), false},
		{"no creation time", Version{Number: 1}, at(9, 20), false},
		{"against none", at(1, 10), Version{}, false},
	} {
		if got := c.v.Before(c.w); got != c.want {
			t.Errorf("%s: %v before %v: %t, want %t", c.what, c.v, c.w, got, c.want)
		}
	}
	if got := fmt.Sprint(Version{}, " ", Version{Number: 7}); got != "unversioned 7" {
		t.Errorf("versions print as %q", got)
	}
}

func TestParseRef(t *testing.T) {
	for in, want := range map[string]Ref{
		"secret/gemini#api_key":      {"secret/gemini", "api_key"},
		"/secret/gemini/#api_key":    {"secret/gemini", "api_key"},
		"team/a/kv/deep/path#f.with": {"team/a/kv/deep/path", "f.with"},
	} {
		got, err := ParseRef(in)
		if err != nil || got != want {
			t.Errorf("ParseRef(%q) = %+v, %v, want %+v", in, got, err, want)
		}
		if again, err := ParseRef(got.String()); err != nil || again != got {
			t.Errorf("%q does not survive a round trip: %+v, %v", in, again, err)
		}
	}
	for in, want := range map[string]string{
		"":                 "field is missing",
		"secret/gemini":    "field is missing",
		"secret/gemini#":   "field is missing",
		"secret#api_key":   "path is missing",
		"#api_key":         "path is missing",
		"a/b#c#d":          "more than one #",
		"a//b#c":           "segment",
		"a/../b#c":         "segment",
		"a/b c#d":          "space or control",
		"a/b#c\n":          "space or control",
		"secret/gem\x00#k": "space or control",
	} {
		if _, err := ParseRef(in); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("ParseRef(%q): %v, want an error with %q", in, err, want)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add("secret/gemini#api_key")
	f.Add("a//b#c")
	f.Fuzz(func(t *testing.T, s string) {
		ref, err := ParseRef(s)
		if err != nil {
			return
		}
		if again, err := ParseRef(ref.String()); err != nil || again != ref {
			t.Errorf("%q parsed as %+v, which parses as %+v, %v", s, ref, again, err)
		}
	})
}
