package leaktest

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"
)

const secret = "AQ.canary/+key-1234567890abcdef"

// encodings are the ways in which a secret gets out, each with neighbours.
var encodings = map[string]func(string) string{
	"raw":     func(s string) string { return "key=" + s + "&" },
	"query":   func(s string) string { return url.Values{"key": {s}}.Encode() },
	"path":    func(s string) string { return "/v1/" + url.PathEscape(s) },
	"percent": func(s string) string { return everyByte(s, "%%%02x") },
	"hex":     func(s string) string { return fmt.Sprintf("%X", "key "+s) },
	"decimal": func(s string) string { return fmt.Sprint([]byte("key " + s)) },
	"a JSON array": func(s string) string {
		b, _ := json.Marshal(strings.Split(fmt.Sprint([]byte(s)), " "))
		return strings.ReplaceAll(string(b), `"`, "")
	},
	"Go syntax":     func(s string) string { return strings.Join(strings.Fields(fmt.Sprint([]byte(s))), ", ") },
	"base64":        func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) },
	"base64, at 1":  func(s string) string { return base64.StdEncoding.EncodeToString([]byte("k" + s + "k")) },
	"base64, at 2":  func(s string) string { return base64.URLEncoding.EncodeToString([]byte("ke" + s + "key")) },
	"JSON's escape": func(s string) string { return everyByte(s, "\\u%04X") },
}

func everyByte(s, format string) (all string) {
	for _, c := range []byte(s) {
		all += fmt.Sprintf(format, c)
	}
	return all
}

func TestASecretIsFoundHoweverItIsWritten(t *testing.T) {
	for name, encode := range encodings {
		if _, found := Find("before "+encode(secret)+" after", secret); !found {
			t.Errorf("%s: not found in %q", name, encode(secret))
		}
	}
}

func TestWhatIsNotTheSecretIsNotFound(t *testing.T) {
	for name, encode := range encodings {
		if form, found := Find(encode("AQ.another/+key-abcdef1234567890"), secret); found {
			t.Errorf("%s: %q found where it isn't", name, form)
		}
	}
}
