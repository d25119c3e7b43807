package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"reflect"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kelseyhightower/envconfig"

	"github.com/keyturn/keyturn/agent/internal/gate"
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
	SecretIDFile string `split_words:"true" default:"/etc/keyturn/secret-id" desc:"the secret-id, plain or response-wrapped, for approle; none if the file is missing"`
	JWTFile      string `split_words:"true" default:"/var/run/secrets/kubernetes.io/serviceaccount/token" desc:"the token, for kubernetes and jwt"`
	PollInterval string `split_words:"true" default:"15s" desc:"mean time between two reads of a secret"`
	Listen       string `default:"127.0.0.1:9180" desc:"where /livez /readyz /metrics answer"`
	RequireTmpfs string `split_words:"true" default:"true" desc:"refuse to write a key to a disk"`
	Validate     string `default:"gemini-api-key" desc:"files whose new value Gemini must accept first, or off"`
	AllowHTTP    string `split_words:"true" default:"false" desc:"allow plain http to a Gemini endpoint that is not loopback"`
	Confine      string `default:"best-effort" desc:"confine the agent itself, by Landlock and more: best-effort, require or off"`
	ConnectPorts string `split_words:"true" desc:"TCP ports that a confined agent may connect to, besides 53 and those of Vault, Gemini and a proxy"`
	OnExit       string `split_words:"true" default:"wipe" desc:"wipe or keep the files when told to stop"`
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
	Store      *vault.Source
	SkipVerify bool
	Poll       time.Duration
	Listen     string
	Validate   []string
	Gemini     *gate.Gemini
	KeepOnExit bool
	Confine    confinement
	Log        *slog.Logger
}

const prefix = "AGENT"

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
		Secrets:    p.secrets("AGENT_SECRETS", v.Secrets),
		Dir:        p.directory("AGENT_DIR", v.Dir),
		AllowDisk:  !p.boolean("AGENT_REQUIRE_TMPFS", v.RequireTmpfs),
		SkipVerify: p.skipVerify("VAULT_SKIP_VERIFY", own.VaultSkipVerify),
		Poll:       p.interval("AGENT_POLL_INTERVAL", v.PollInterval),
		Listen:     p.address("AGENT_LISTEN", v.Listen),
		KeepOnExit: p.oneOf("AGENT_ON_EXIT", v.OnExit, "wipe", "keep") == "keep",
		Log:        p.logger(logs, v.LogLevel, v.LogFormat),
	}
	c.Validate = p.validate("AGENT_VALIDATE", v.Validate, c.Secrets, valueOf(environ, "AGENT_VALIDATE") != "")
	c.Store = p.vault(v, own, c.Poll, c.Log)
	if c.Gemini, err = gate.NewGemini(own.GoogleGeminiBaseURL, p.boolean("AGENT_ALLOW_HTTP", v.AllowHTTP)); err != nil {
		p.say("GOOGLE_GEMINI_BASE_URL", err.Error())
	}
	gemini := own.GoogleGeminiBaseURL
	if len(c.Validate) == 0 {
		gemini = ""
	}
	c.Confine = p.confinement(v, gemini, environ)
	note = func() {
		for _, n := range p.notes {
			c.Log.Warn(n)
		}
	}
	return c, note, p.err()
}

// vault returns the store, not logged in yet.
func (p *problems) vault(v variables, own unprefixed, poll time.Duration, log *slog.Logger) *vault.Source {
	auth := p.oneOf("AGENT_AUTH", v.Auth, "token", "approle", "kubernetes", "jwt", "cert")
	p.absolute("AGENT_TOKEN_FILE", v.TokenFile)
	p.absolute("AGENT_ROLE_ID_FILE", v.RoleIDFile)
	p.absolute("AGENT_SECRET_ID_FILE", v.SecretIDFile)
	p.absolute("AGENT_JWT_FILE", v.JWTFile)
	c := vault.Config{
		Auth:         vault.Method(auth),
		AuthMount:    strings.Trim(v.AuthMount, "/"),
		AuthRole:     v.AuthRole,
		TokenFile:    v.TokenFile,
		RoleIDFile:   v.RoleIDFile,
		SecretIDFile: v.SecretIDFile,
		JWTFile:      v.JWTFile,
		Poll:         poll,
	}
	if auth == "token" && v.TokenFile == "" && own.VaultToken != "" {
		c.Token = own.VaultToken
		p.note("VAULT_TOKEN", "the environment can be read by others and is the same at every login: put the token into AGENT_TOKEN_FILE instead")
	}
	if auth == "kubernetes" && v.AuthRole == "" {
		p.say("AGENT_AUTH_ROLE", "is missing: kubernetes needs the name of a role")
	}
	if own.VaultWrapTTL != "" {
		p.say("VAULT_WRAP_TTL", "would wrap every answer of Vault: unset it")
	}
	if auth == "" { // New would say no more than that
		if err := vault.CheckEnvironment(); err != nil {
			p.found = append(p.found, err)
		}
		return nil
	}
	store, err := vault.New(c, log)
	if err != nil {
		p.found = append(p.found, err)
	}
	return store
}

// absolute wants a path that starts with /, which a credential that was pasted into the wrong variable hardly does.
func (p *problems) absolute(name, value string) {
	if value != "" && !(filepath.IsAbs(value) && isPath(value)) {
		p.say(name, "is not an absolute path: start it with /, and write the credential into that file")
	}
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

  run      render, and go on rendering, until SIGTERM, SIGINT or SIGHUP (the default)
  health   ask the running agent whether every file is rendered (-wait=8s: ask until it is, for that long)
  status   show what the running agent has read, rendered, and knows to be in use (-json: as JSON)
  version  print version, commit and Go version
  -h       print this

Variables, each with its default in brackets:

`

const usageTail = `  VAULT_*  Vault's own: VAULT_ADDR, VAULT_NAMESPACE, VAULT_CACERT, VAULT_CLIENT_CERT, ...

Exit codes: 0 done, 1 failed, 2 wrong use or configuration.

An agent that is told to stop closes its socket, wipes the files (AGENT_ON_EXIT), and revokes the token if it
logged in for it: within seconds.
A second signal ends it at once.
`
