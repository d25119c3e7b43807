package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/agnivade/levenshtein"
	"github.com/kelseyhightower/envconfig"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/keyfile"
)

// variables are read with the prefix APP. They are strings, so that every problem is found in one go and none quotes a
// value; a default holds for a variable that is unset or empty, or only for one that is unset where empty means something.
type variables struct {
	KeyFile     string `split_words:"true" default:"/run/keyturn/keys/gemini-api-key" empty:"kept" desc:"the file that holds the key, and is watched; set to empty: GEMINI_API_KEY"`
	AgentSocket string `split_words:"true" default:"agent.sock" empty:"kept" desc:"the agent's socket, in the key file's directory unless it starts with /; set to empty: never asked"`
	SDK         string `default:"generative-ai-go" desc:"the library that calls Gemini: generative-ai-go or genai"`
	Model       string `default:"gemini-3.8-flash" desc:"the model, without models/"`
	AllowHTTP   string `split_words:"true" default:"false" desc:"allow plain http to a Gemini endpoint that is not loopback"`
	Listen      string `default:"127.0.0.1:8080" desc:"where /v1/generate /v1/stream /status /livez /readyz /metrics answer"`
	LogLevel    string `split_words:"true" default:"info" desc:"debug, info, warn or error"`
	LogFormat   string `split_words:"true" default:"json" desc:"json or text"`
}

// unprefixed are variables that others named.
type unprefixed struct {
	GeminiAPIKey        string `split_words:"true" desc:"a key that never changes, for local work; used only if APP_KEY_FILE is set to empty"`
	GoogleGeminiBaseURL string `envconfig:"GOOGLE_GEMINI_BASE_URL" default:"https://generativelanguage.googleapis.com" desc:"where Gemini is asked"`
}

// Config is what the variables say, checked.
type Config struct {
	KeyFile  string      // empty: Static serves
	Static   keyfile.Key // zero if KeyFile is set
	Socket   string      // the agent's; empty: it is never asked
	Gemini   gemini.Config
	Listen   string
	LogLevel slog.Level
	LogText  bool
}

const prefix = "APP"

// load reads the environment. It returns the notes that are worth a log line, or all problems as one error.
func load(environ []string) (Config, []string, error) {
	var v variables
	var own unprefixed
	if err := errors.Join(envconfig.Process(prefix, &v), envconfig.Process("", &own)); err != nil {
		return Config{}, nil, err
	}
	fillDefaults(&v)
	fillDefaults(&own)
	p := &problems{}
	notes := p.unknown(environ)

	c := Config{
		KeyFile: v.KeyFile,
		Socket:  socket(v),
		Gemini:  p.gemini(v, own),
		Listen:  p.address("APP_LISTEN", v.Listen),
		LogText: p.oneOf("APP_LOG_FORMAT", v.LogFormat, "json", "text") == "text",
	}
	if v.KeyFile != "" && !filepath.IsAbs(v.KeyFile) {
		p.say("APP_KEY_FILE", "is not an absolute path: start it with /")
	}
	if c.LogLevel.UnmarshalText([]byte(v.LogLevel)) != nil {
		p.say("APP_LOG_LEVEL", "is none of debug, info, warn, error")
	}
	var note string
	if c.Static, note = p.static(v.KeyFile, own.GeminiAPIKey); note != "" {
		notes = append(notes, note)
	}
	return c, notes, p.err()
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

// static returns the key that serves if no file is named, and what to say about it.
func (p *problems) static(keyFile, value string) (keyfile.Key, string) {
	switch {
	case keyFile != "" && value == "":
		return keyfile.Key{}, ""
	case keyFile != "":
		return keyfile.Key{}, "GEMINI_API_KEY: is ignored, since the key comes from the file in APP_KEY_FILE; unset one of them: APP_KEY_FILE by setting it to empty"
	case value == "":
		p.say("APP_KEY_FILE", "is empty, and there is no GEMINI_API_KEY: name the key's file, or set the key for local work")
		return keyfile.Key{}, ""
	}
	key, err := keyfile.NewKey([]byte(value))
	if err != nil {
		p.say("GEMINI_API_KEY", "is no key: "+err.Error())
	}
	return key, "GEMINI_API_KEY: the environment can be read by others, and this key never changes while the app runs; for anything but local work put the key into a file and name it in APP_KEY_FILE"
}

// socket returns the path of the agent's socket. Without a key file there is nothing to ask the agent about.
func socket(v variables) string {
	switch {
	case v.KeyFile == "" || v.AgentSocket == "":
		return ""
	case filepath.IsAbs(v.AgentSocket):
		return v.AgentSocket
	}
	return filepath.Join(filepath.Dir(v.KeyFile), v.AgentSocket)
}

// problems gathers what is wrong. It names variables, never their values: a key may have been pasted into the wrong one.
type problems struct{ found []error }

func (p *problems) say(name, problem string) {
	p.found = append(p.found, fmt.Errorf("%s %s", name, problem))
}

func (p *problems) err() error {
	if len(p.found) == 0 {
		return nil
	}
	return fmt.Errorf("the configuration has problems:\n%w", errors.Join(p.found...))
}

func (p *problems) boolean(name, value string) bool {
	return p.oneOf(name, strings.ToLower(value), "true", "false", "1", "0") == "true" || value == "1"
}

func (p *problems) oneOf(name, value string, allowed ...string) string {
	if !slices.Contains(allowed, value) {
		p.say(name, "is none of "+strings.Join(allowed, ", "))
	}
	return value
}

func (p *problems) address(name, value string) string {
	if _, port, err := net.SplitHostPort(value); err != nil || port == "" {
		p.say(name, "is not HOST:PORT")
	}
	return value
}

// unknown refuses variables with our prefix that are within two letters of one we know, and returns notes on the others:
// platforms inject variables of their own, APP_ENV or APP_SERVICE_HOST for instance.
func (p *problems) unknown(environ []string) []string {
	known := names()
	var notes []string
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
			notes = append(notes, name+": is not a variable of the app and is ignored")
		}
	}
	return notes
}

// names returns the variables with our prefix.
func names() []string {
	var b strings.Builder
	envconfig.Usagef(prefix, &variables{}, &b, "{{range .}}{{usage_key .}} {{end}}")
	return strings.Fields(b.String())
}

// fillDefaults sets what is unset or empty in the struct that v points to, except where empty means something: there
// envconfig has set what is unset.
func fillDefaults(v any) {
	fields := reflect.ValueOf(v).Elem()
	for i := range fields.NumField() {
		tag := fields.Type().Field(i).Tag
		if fields.Field(i).String() == "" && tag.Get("empty") != "kept" {
			fields.Field(i).SetString(tag.Get("default"))
		}
	}
}

func usage(w io.Writer) error {
	fmt.Fprint(w, usageHead)
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	const rows = "{{range .}}  {{usage_key .}}\t{{usage_description .}}{{if usage_default .}} [{{usage_default .}}]{{end}}\n{{end}}"
	envconfig.Usagef(prefix, &variables{}, table, rows)
	envconfig.Usagef("", &unprefixed{}, table, rows)
	if err := table.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprint(w, usageTail)
	return err
}

const usageHead = `keyturn-app answers prompts through the Gemini API, with a key that changes in a file while requests are in flight.

usage: keyturn-app [command]

  run      answer until SIGTERM (the default)
  health   ask the running app whether it is ready
  version  print version, commit and Go version
  -h       print this

Variables, each with its default in brackets:

`

const usageTail = `
Exit codes: 0 done, 1 failed, 2 wrong use or configuration.
`
