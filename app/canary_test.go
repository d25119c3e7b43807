package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/app/internal/server"
	"github.com/keyturn/keyturn/examples/leaktest"
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
			if !strings.Contains(app.stderr.String(), "has not been used in project") {
				t.Error("the log doesn't say what a person has to set up")
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
			if form, found := leaktest.Find(said.String(), canary); found {
				t.Errorf("the key came out as %q", form)
			}
		})
	}
}
