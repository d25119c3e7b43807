package main

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/examples/quickstart/internal/drill"
	"github.com/keyturn/keyturn/examples/quickstart/internal/stage"
)

func sdks() []string {
	var names []string
	for _, sdk := range gemini.SDKs() {
		names = append(names, string(sdk))
	}
	return names
}

func weathers() []string {
	var names []string
	for _, w := range drill.Weathers() {
		names = append(names, string(w))
	}
	return names
}

func stageFlags(f *flag.FlagSet, o *stage.Options) {
	o.RuntimeDir = os.Getenv("XDG_RUNTIME_DIR")
	f.StringVar(&o.Agent, "agent", "", "a `binary` of keyturn-agent; empty: built")
	f.StringVar(&o.App, "app", "", "a `binary` of keyturn-app; empty: built")
	f.StringVar(&o.Logs, "logs", "", "keep what agents and apps log in this `directory`")
}

// known returns an error unless each of the names, which commas part, is among all.
func known(what, names string, all []string) error {
	for name := range strings.SplitSeq(names, ",") {
		if !slices.Contains(all, name) {
			return fmt.Errorf("%s: %q is none of %s", what, name, strings.Join(all, ", "))
		}
	}
	return nil
}

// realAPI returns the real API with the keys in the file at path.
func realAPI(path string) (*drill.Real, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("GEMINI_API_KEYS_FILE: %w", err)
	}
	keys := strings.Fields(string(content))
	if len(keys) != 2 || keys[0] == keys[1] {
		return nil, fmt.Errorf("GEMINI_API_KEYS_FILE: %s holds not two different keys: write one a line", path)
	}
	api := &drill.Real{Keys: [2]string{keys[0], keys[1]}, BaseURL: os.Getenv("GOOGLE_GEMINI_BASE_URL"), Model: os.Getenv("APP_MODEL")}
	for _, name := range []string{"HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy", "SSL_CERT_FILE", "SSL_CERT_DIR"} {
		if value := os.Getenv(name); value != "" {
			api.Environ = append(api.Environ, name+"="+value)
		}
	}
	return api, nil
}
