package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"reflect"
	"text/tabwriter"

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
	KeyFile string      // empty: Static serves
	Static  keyfile.Key // zero if KeyFile is set
	Socket  string      // the agent's; empty: it is never asked
	Gemini  gemini.Config
	Listen  string
	Log     *slog.Logger
}

const prefix = "APP"

// load reads the environment. Logs will go to logs. Its error names all problems; what is odd and yet works is logged by note.
func load(environ []string, logs io.Writer) (c Config, note func(), err error) {
	var v variables
	var own unprefixed
	if err := errors.Join(envconfig.Process(prefix, &v), envconfig.Process("", &own)); err != nil {
		return Config{}, nil, err
	}
	fillDefaults(&v)
	fillDefaults(&own)
	p := &problems{}
	p.unknown(environ)
	c = Config{
		KeyFile: p.file("APP_KEY_FILE", v.KeyFile),
		Static:  p.static("GEMINI_API_KEY", own.GeminiAPIKey, v.KeyFile),
		Socket:  socket(v.AgentSocket, v.KeyFile),
		Gemini:  p.gemini(v, own),
		Listen:  p.address("APP_LISTEN", v.Listen),
		Log:     p.logger(logs, v.LogLevel, v.LogFormat),
	}
	note = func() {
		for _, n := range p.notes {
			c.Log.Warn(n)
		}
	}
	return c, note, p.err()
}

// socket returns the path of the agent's socket. Without a key file there is nothing to ask the agent about.
func socket(value, keyFile string) string {
	switch {
	case keyFile == "" || value == "":
		return ""
	case filepath.IsAbs(value):
		return value
	}
	return filepath.Join(filepath.Dir(keyFile), value)
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
