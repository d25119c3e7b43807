package gemini_test

import (
	"strings"
	"testing"

	"github.com/keyturn/keyturn/app/gemini"
)

func TestCheckEndpoint(t *testing.T) {
	tests := []struct {
		url       string
		allowHTTP bool
		problem   string // a word of the error; empty: it is good
	}{
		{gemini.DefaultBaseURL, false, ""},
		{"https://example.com/", false, ""},
		{"https://example.com:8443/gateway/gemini/", false, ""},
		{"HTTPS://EXAMPLE.COM", false, ""},
		{"http://localhost:8080", false, ""},
		{"http://LocalHost", false, ""},
		{"http://127.0.0.1:9999", false, ""},
		{"http://127.8.9.10", false, ""},
		{"http://[::1]:80", false, ""},
		{"http://[::ffff:127.0.0.1]:80", false, ""},
		{"http://gateway.internal", true, ""},
		{"http://gateway.internal", false, "clear text"},
		{"http://localhost.evil.test", false, "clear text"},
		{"http://127.0.0.1.evil.test", false, "clear text"},
		{"http://0.0.0.0", false, "clear text"},
		{"http://10.0.0.1", false, "clear text"},
		{"http://0x7f.1", false, "clear text"},
		{"http://2130706433", false, "clear text"},
		{"https://user@example.com", false, "user"},
		{"https://:secret@example.com", false, "user"},
		{"http://localhost@evil.test", true, "user"},
		{"https://example.com?key=secret", false, "query"},
		{"https://example.com/?", false, "query"},
		{"https://example.com/#part", false, "fragment"},
		{"https://example.com/#", false, "fragment"},
		{"https://example.com/a%2fb", false, "percent"},
		{"http://[::1%25lo]:80", false, "percent"},
		{"https://example.com:0", false, "port"},
		{"https://example.com:99999", false, "port"},
		{"https://example.com:", false, "port"},
		{"https://example.com:http", false, "absolute"},
		{"", false, "absolute"},
		{"example.com", false, "absolute"},
		{"//example.com", false, "absolute"},
		{"https://", false, "absolute"},
		{"https:example.com", false, "absolute"},
		{"ftp://example.com", true, "absolute"},
		{"unix:///run/gemini.sock", true, "absolute"},
		{"https://exa mple.com", false, "absolute"},
		{"https://example.com/\nx", false, "absolute"},
	}
	for _, test := range tests {
		err := gemini.CheckEndpoint(test.url, test.allowHTTP)
		switch {
		case test.problem == "" && err != nil:
			t.Errorf("%q: %v", test.url, err)
		case test.problem != "" && (err == nil || !strings.Contains(err.Error(), test.problem)):
			t.Errorf("%q: %v, want something about %q", test.url, err, test.problem)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("%q: the error quotes it: %v", test.url, err)
		}
	}
}
