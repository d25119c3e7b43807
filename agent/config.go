package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/kelseyhightower/envconfig"

	"github.com/keyturn/keyturn/agent/internal/gate"
	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source/vault"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// variables are read with the prefix AGENT. They are strings, so that every problem is found in one go and none quotes a
// value; a default holds for a variable that is unset or empty.
type variables struct {
	Secrets      string `default:"gemini-api-key=secret/gemini#api_key" desc:"what to render: FILE=MOUNT/PATH#FIELD[,...]"`
	Dir          string `default:"/run/keyturn/keys" desc:"where to render it; made, mode 0700, if its parent exists"`
	Auth         string `default:"token" desc:"how to log in to Vault: token, approle, kubernetes, jwt or cert"`
	AuthMount    string `split_words:"true" desc:"where that method is mounted (default: its name)"`
	AuthRole     string `split_words:"true" desc:"the role to log in as; kubernetes needs one"`
	TokenFile    string `split_words:"true" desc:"the token, for token (default: .vault-token in the home directory)"`
	RoleIDFile   string `split_words:"true" default:"/etc/keyturn/role-id" desc:"the role-id, for approle"`
	SecretIDFile string `split_words:"true" default:"/etc/keyturn/secret-id" desc:"the secret-id, plain or response-wrapped, for approle"`
	JWTFile      string `split_words:"true" default:"/var/run/secrets/kubernetes.io/serviceaccount/token" desc:"the token, for kubernetes and jwt"`
	PollInterval string `split_words:"true" default:"15s" desc:"mean time between two reads of a secret"`
	Listen       string `default:"127.0.0.1:9180" desc:"where /livez /readyz /metrics answer"`
	RequireTmpfs string `split_words:"true" default:"true" desc:"refuse to write a key to a disk"`
	Validate     string `default:"gemini-api-key" desc:"files whose new value Gemini must accept first, or off"`
	AllowHTTP    string `split_words:"true" default:"false" desc:"allow plain http to a Gemini endpoint that is not loopback"`
	OnExit       string `split_words:"true" default:"wipe" desc:"wipe or keep the files on SIGTERM"`
	LogLevel     string `split_words:"true" default:"info" desc:"debug, info, warn or error"`
	LogFormat    string `split_words:"true" default:"json" desc:"json or text"`
}

// unprefixed are variables that others named. Vault's are read by vault/api, all of them; the agent looks at these as well.
type unprefixed struct {
	GoogleGeminiBaseURL string `envconfig:"GOOGLE_GEMINI_BASE_URL" default:"https://generativelanguage.googleapis.com" desc:"where new keys are proven"`

	VaultToken      string `split_words:"true" desc:"the token, for token; AGENT_TOKEN_FILE is safer"`
	VaultSkipVerify string `split_words:"true" desc:"true: don't check Vault's certificate; a gauge tells"`
	VaultWrapTTL    string `split_words:"true" desc:"refused: it would wrap every answer"`
}

// Config is what the variables say, checked.
type Config struct {
	Secrets    []turn.Secret
	Dir        string
	AllowDisk  bool
	Vault      vault.Config
	SkipVerify bool
	Poll       time.Duration
	Listen     string
	Validate   []string
	Gemini     *gate.Gemini
	KeepOnExit bool
	LogLevel   slog.Level
	LogText    bool
}

const prefix = "AGENT"

// load reads the environment. It returns the notes that are worth a log line, or all problems as one error.
func load(environ []string) (Config, []string, error) {
	var v variables
	var own unprefixed
	if err := errors.Join(envconfig.Process(prefix, &v), envconfig.Process("", &own)); err != nil {
		return Config{}, nil, err
	}
	explicit := v.Validate != ""
	fillDefaults(&v)
	fillDefaults(&own)
	p := &problems{}
	notes := p.unknown(environ)

	c := Config{
		Secrets:    p.secrets("AGENT_SECRETS", v.Secrets),
		Dir:        v.Dir,
		AllowDisk:  !p.boolean("AGENT_REQUIRE_TMPFS", v.RequireTmpfs),
		Vault:      p.vault(v, own),
		SkipVerify: own.VaultSkipVerify != "" && p.boolean("VAULT_SKIP_VERIFY", own.VaultSkipVerify),
		Poll:       p.interval("AGENT_POLL_INTERVAL", v.PollInterval),
		Listen:     p.address("AGENT_LISTEN", v.Listen),
		KeepOnExit: p.oneOf("AGENT_ON_EXIT", v.OnExit, "wipe", "keep") == "keep",
		LogText:    p.oneOf("AGENT_LOG_FORMAT", v.LogFormat, "json", "text") == "text",
	}
	c.Validate = p.validate("AGENT_VALIDATE", v.Validate, c.Secrets, explicit)
	var err error
	if c.Gemini, err = gate.NewGemini(own.GoogleGeminiBaseURL, p.boolean("AGENT_ALLOW_HTTP", v.AllowHTTP)); err != nil {
		p.say("GOOGLE_GEMINI_BASE_URL", err.Error())
	}
	if !filepath.IsAbs(v.Dir) {
		p.say("AGENT_DIR", "is not an absolute path: start it with /")
	}
	if c.LogLevel.UnmarshalText([]byte(v.LogLevel)) != nil {
		p.say("AGENT_LOG_LEVEL", "is none of debug, info, warn, error")
	}
	if own.VaultWrapTTL != "" {
		p.say("VAULT_WRAP_TTL", "would wrap every answer of Vault: unset it")
	}
	if c.SkipVerify {
		notes = append(notes, "VAULT_SKIP_VERIFY: Vault's certificate is not checked, so anybody on the way can read the secrets; set VAULT_CACERT instead")
	}
	if c.Vault.Token != "" {
		notes = append(notes, "VAULT_TOKEN: the environment can be read by others and is the same at every login; put the token into AGENT_TOKEN_FILE instead")
	}
	return c, notes, p.err()
}

func (p *problems) vault(v variables, own unprefixed) vault.Config {
	c := vault.Config{
		Auth:         vault.Method(p.oneOf("AGENT_AUTH", v.Auth, "token", "approle", "kubernetes", "jwt", "cert")),
		AuthMount:    strings.Trim(v.AuthMount, "/"),
		AuthRole:     v.AuthRole,
		TokenFile:    v.TokenFile,
		RoleIDFile:   v.RoleIDFile,
		SecretIDFile: v.SecretIDFile,
		JWTFile:      v.JWTFile,
	}
	if v.Auth == "token" && v.TokenFile == "" {
		c.Token = own.VaultToken
	}
	if v.Auth == "kubernetes" && v.AuthRole == "" {
		p.say("AGENT_AUTH_ROLE", "is missing: kubernetes needs the name of a role")
	}
	return c
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

func (p *problems) interval(name, value string) time.Duration {
	d, err := time.ParseDuration(value)
	switch {
	case err != nil:
		p.say(name, "is not a duration: write it like 15s or 1m30s")
	case d < 100*time.Millisecond || d > 24*time.Hour:
		p.say(name, "is not between 100ms and 24h")
	}
	return d
}

func (p *problems) address(name, value string) string {
	if _, port, err := net.SplitHostPort(value); err != nil || port == "" {
		p.say(name, "is not HOST:PORT")
	}
	return value
}

// fileName is what a rendered file may be called. Names that start with a dot are the sink's own.
var fileName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]*$`)

// socketName is taken: the agent's socket lies beside the files.
const socketName = "agent.sock"

func (p *problems) secrets(name, value string) []turn.Secret {
	var all []turn.Secret
	seen := map[string]bool{socketName: true}
	for i, entry := range strings.Split(value, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		file, rest, found := strings.Cut(entry, "=")
		ref, err := secret.ParseRef(rest)
		where := fmt.Sprintf("entry %d: ", i+1)
		switch {
		case !found:
			p.say(name, where+"there is no = in it: write FILE=MOUNT/PATH#FIELD")
		case !fileName.MatchString(file):
			p.say(name, where+"the file's name may have a-z, 0-9, dot, dash and underscore, and starts with a letter or digit")
		case seen[file]:
			p.say(name, where+"the file's name is taken: give it another")
		case err != nil:
			p.say(name, where+err.Error())
		}
		seen[file] = true
		all = append(all, turn.Secret{File: file, Ref: ref})
	}
	if len(all) == 0 {
		p.say(name, "names no secret: write FILE=MOUNT/PATH#FIELD")
	}
	return all
}

// validate returns the files to prove. The default names one that other secrets needn't have.
func (p *problems) validate(name, value string, secrets []turn.Secret, explicit bool) []string {
	if value == "off" {
		return nil
	}
	var files []string
	for _, file := range strings.Split(value, ",") {
		file = strings.TrimSpace(file)
		switch {
		case slices.ContainsFunc(secrets, func(s turn.Secret) bool { return s.File == file }):
			files = append(files, file)
		case explicit:
			p.say(name, "names a file that AGENT_SECRETS doesn't: name one of its files, or off")
		}
	}
	return files
}

// unknown refuses variables with our prefix that are within two letters of one we know, and returns notes on the others:
// platforms inject variables of their own, AGENT_NAME or AGENT_SERVICE_HOST for instance.
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
			notes = append(notes, name+": is not a variable of the agent and is ignored")
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

// fillDefaults sets what is unset or empty in the struct that v points to.
func fillDefaults(v any) {
	fields := reflect.ValueOf(v).Elem()
	for i := range fields.NumField() {
		if fields.Field(i).String() == "" {
			fields.Field(i).SetString(fields.Type().Field(i).Tag.Get("default"))
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

const usageHead = `keyturn-agent takes secrets from HashiCorp Vault and renders each to a 0600 file in memory.

usage: keyturn-agent [command]

  run      render, and go on rendering, until SIGTERM (the default)
  health   ask the running agent whether every file is rendered
  status   show what the running agent has read, rendered, and knows to be in use (-json: as JSON)
  version  print version, commit and Go version
  -h       print this

Variables, each with its default in brackets:

`

const usageTail = `  VAULT_*  Vault's own: VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT, VAULT_CLIENT_CERT, ...

Exit codes: 0 done, 1 failed, 2 wrong use or configuration.
`
