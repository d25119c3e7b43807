package main

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/app/internal/server"
)

// A key comes out through what quotes it: Google's own errors, an SDK's, a file's. Everything that the app says is searched.
func TestNothingThatComesOutHoldsTheKey(t *testing.T) {
	for _, sdk := range gemini.SDKs() {
		t.Run(string(sdk), func(t *testing.T) {
			api := geminitest.NewServer()
			defer api.Close()
			api.Add(canary)
			file := filepath.Join(t.TempDir(), "key")
			app := start(t, "APP_KEY_FILE="+file, "APP_SDK="+string(sdk), "APP_LOG_LEVEL=debug", "GOOGLE_GEMINI_BASE_URL="+api.URL)
			var said strings.Builder
			everything := func() {
				for _, path := range []string{"/v1/generate", "/v1/stream"} {
					said.WriteString(app.post(t, path))
				}
				for _, path := range []string{"/status", "/readyz", "/livez", "/metrics"} {
					said.WriteString(app.get(t, path))
				}
			}

			render(t, file, canary+"\n", 0o600)
			eventually(t, "the file is refused for its newline", func() bool { return strings.Contains(app.stderr.String(), "newline") })
			render(t, file, canary, 0o644)
			eventually(t, "the file is refused for its mode", func() bool { return strings.Contains(app.stderr.String(), "chmod") })
			render(t, file, canary, 0o600)
			eventually(t, "it is ready", func() bool { return strings.Contains(app.get(t, "/readyz"), `"ready":true`) })
			everything()
			for _, end := range []geminitest.End{geminitest.EndUnfinished, geminitest.EndCut} {
				api.SetStream(geminitest.Stream{Pieces: 2, End: end})
				everything()
			}
			api.Fail(2, 500, nil, "<html>x-goog-api-key: "+canary+"</html>")
			everything()
			for _, c := range []geminitest.Case{geminitest.ServiceDisabled, geminitest.ProjectDenied, geminitest.TwoCredentials,
				geminitest.QuotaExceeded, geminitest.BadRequest, geminitest.NoModel, geminitest.Internal} {
				api.Refuse(canary, c)
				everything()
			}
			api.Add(canary)
			api.SetStream(geminitest.Stream{Pieces: 2, End: geminitest.EndError, Case: geminitest.Suspended})
			everything()
			api.Suspend(canary)
			everything()
			if !strings.Contains(app.stderr.String(), "has been suspended") {
				t.Error("the error that quotes the key never came")
			}
			for _, kind := range []string{"key-refused", "quota", "configuration", "request-refused", "unavailable", "truncated"} {
				if !strings.Contains(said.String(), server.TypePrefix+kind) {
					t.Errorf("no problem of the kind %s ever came", kind)
				}
			}
			if err := app.stop(); err != nil {
				t.Error(err)
			}
			said.WriteString(app.stderr.String())
			for _, form := range forms(canary) {
				if strings.Contains(strings.ToLower(said.String()), strings.ToLower(form)) {
					t.Errorf("the key came out as %q", form)
				}
			}
		})
	}
}

func TestTheSearchFindsWhatItShould(t *testing.T) {
	found := func(text string) bool {
		for _, form := range forms(canary) {
			if strings.Contains(strings.ToLower(text), strings.ToLower(form)) {
				return true
			}
		}
		return false
	}
	percent, escapes := "", ""
	for _, c := range []byte(canary) {
		percent += fmt.Sprintf("%%%02x", c)
		escapes += fmt.Sprintf("\\u%04X", c)
	}
	for name, text := range map[string]string{
		"raw":           "key=" + canary + "&",
		"query":         url.QueryEscape("key=" + canary),
		"percent":       percent,
		"hex":           fmt.Sprintf("%X", "key "+canary),
		"decimal":       fmt.Sprint([]byte("key " + canary)),
		"base64":        base64.StdEncoding.EncodeToString([]byte(canary)),
		"base64, at 1":  base64.StdEncoding.EncodeToString([]byte("k" + canary + "k")),
		"base64, at 2":  base64.URLEncoding.EncodeToString([]byte("ke" + canary + "key")),
		"JSON's escape": escapes,
	} {
		if !found(text) {
			t.Errorf("%s: not found in %q", name, text)
		}
	}
	if found("AQ.another-key, and no canary") {
		t.Error("found where it isn't")
	}
}

// forms returns how key may be written.
func forms(key string) []string {
	percent, escapes := "", ""
	for _, c := range []byte(key) {
		percent += fmt.Sprintf("%%%02x", c)
		escapes += fmt.Sprintf("\\u%04x", c)
	}
	decimal := strings.Trim(fmt.Sprint([]byte(key)), "[]")
	all := []string{key, percent, escapes, hex.EncodeToString([]byte(key)), decimal, strings.ReplaceAll(decimal, " ", ",")}
	for at := range 3 { // base64 depends on what stands before; what is left out here depends on the neighbours
		padded := strings.Repeat("-", at) + key
		padded = padded[:len(padded)/3*3]
		for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
			all = append(all, encoding.EncodeToString([]byte(padded))[(at+2)/3*4:])
		}
	}
	return all
}
