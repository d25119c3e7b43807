package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"github.com/kelseyhightower/envconfig"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
)

// problems reads values and gathers what is wrong with them. It names variables, never their values: a key may have been
// pasted into the wrong one.
type problems struct {
	found []error
	notes []string
}

func (p *problems) say(name, problem string) {
	p.found = append(p.found, fmt.Errorf("%s %s", name, problem))
}

func (p *problems) note(name, remark string) { p.notes = append(p.notes, name+": "+remark) }

func (p *problems) err() error {
	if len(p.found) == 0 {
		return nil
	}
	return fmt.Errorf("the configuration has problems:\n%w", errors.Join(p.found...))
}

func (p *problems) boolean(name, value string) bool {
	value = p.oneOf(name, strings.ToLower(value), "true", "false", "1", "0")
	return value == "true" || value == "1"
}

// oneOf returns value, or "" if it is none of those allowed.
func (p *problems) oneOf(name, value string, allowed ...string) string {
	if slices.Contains(allowed, value) {
		return value
	}
	p.say(name, "is none of "+strings.Join(allowed, ", "))
	return ""
}

func (p *problems) address(name, value string) string {
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		p.say(name, "is not HOST:PORT: write it like 127.0.0.1:8080, or :8080 for all addresses")
	}
	return value
}

func (p *problems) file(name, value string) string {
	if value != "" && !filepath.IsAbs(value) {
		p.say(name, "is not an absolute path: start it with /")
	}
	return value
}

// static returns the key that serves if no file is named.
func (p *problems) static(name, value, keyFile string) keyfile.Key {
	switch {
	case keyFile != "" && value == "":
		return keyfile.Key{}
	case keyFile != "":
		p.note(name, "is ignored, since the key comes from the file in APP_KEY_FILE: unset it, or set APP_KEY_FILE to empty")
		return keyfile.Key{}
	case value == "":
		p.say("APP_KEY_FILE", "is empty, and there is no "+name+": name the key's file, or set the key for local work")
		return keyfile.Key{}
	}
	key, err := keyfile.NewKey([]byte(value))
	if err != nil {
		p.say(name, "is no key: "+err.Error())
	}
	p.note(name, "the environment can be read by others, and this key never changes while the app runs: for anything but local work name a file in APP_KEY_FILE")
	return key
}

func (p *problems) gemini(v variables, own unprefixed) gemini.Config {
	var sdks []string
	for _, sdk := range gemini.SDKs() {
		sdks = append(sdks, string(sdk))
	}
	c := gemini.Config{
		SDK:       gemini.SDK(p.oneOf("APP_SDK", v.SDK, sdks...)),
		Model:     v.Model,
		BaseURL:   own.GoogleGeminiBaseURL,
		AllowHTTP: p.boolean("APP_ALLOW_HTTP", v.AllowHTTP),
	}
	if err := gemini.CheckModel(c.Model); err != nil {
		p.say("APP_MODEL", strings.TrimPrefix(err.Error(), "gemini: the model's name "))
	}
	if err := gemini.CheckEndpoint(c.BaseURL, c.AllowHTTP); err != nil {
		p.say("GOOGLE_GEMINI_BASE_URL", strings.TrimPrefix(err.Error(), "gemini: the base URL "))
	}
	return c
}

func (p *problems) logger(w io.Writer, level, format string) *slog.Logger {
	var options slog.HandlerOptions
	var l slog.Level
	if l.UnmarshalText([]byte(p.oneOf("APP_LOG_LEVEL", strings.ToLower(level), "debug", "info", "warn", "error"))) == nil {
		options.Level = l
	}
	if p.oneOf("APP_LOG_FORMAT", strings.ToLower(format), "json", "text") == "text" {
		return slog.New(slog.NewTextHandler(w, &options))
	}
	return slog.New(slog.NewJSONHandler(w, &options))
}

// unknown refuses variables with our prefix that are within two letters of one we know, and notes the others: platforms
// inject variables of their own, APP_ENV or APP_SERVICE_HOST for instance.
func (p *problems) unknown(environ []string) {
	known := names()
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, prefix+"_") || slices.Contains(known, name) {
			continue
		}
		nearest := slices.MinFunc(known, func(a, b string) int {
			return levenshtein.ComputeDistance(name, a) - levenshtein.ComputeDistance(name, b)
		})
		if levenshtein.ComputeDistance(name, nearest) <= 2 {
			p.say(name, "is unknown: did you mean "+nearest+"?")
		} else {
			p.note(name, "is not a variable of the app and is ignored")
		}
	}
}

// names returns the variables with our prefix.
func names() []string {
	var b strings.Builder
	envconfig.Usagef(prefix, &variables{}, &b, "{{range .}}{{usage_key .}} {{end}}")
	return strings.Fields(b.String())
}
