package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/agnivade/levenshtein"
	"github.com/kelseyhightower/envconfig"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/turn"
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

// skipVerify understands what vault/api does, and leaves it to vault/api to say what it doesn't.
func (p *problems) skipVerify(name, value string) bool {
	skip, err := strconv.ParseBool(value)
	if err == nil && skip {
		p.note(name, "Vault's certificate is not checked, so anybody on the way can read the secrets; set VAULT_CACERT instead")
	}
	return err == nil && skip
}

// oneOf returns value, or "" if it is none of those allowed.
func (p *problems) oneOf(name, value string, allowed ...string) string {
	if slices.Contains(allowed, value) {
		return value
	}
	p.say(name, "is none of "+strings.Join(allowed, ", "))
	return ""
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
	_, port, err := net.SplitHostPort(value)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		p.say(name, "is not HOST:PORT: write it like 127.0.0.1:9180, or :9180 for all addresses")
	}
	return value
}

// maxSocket is the most bytes that the path of a unix socket may have (unix(7), sun_path with its final zero).
const maxSocket = 107

func (p *problems) directory(name, value string) string {
	switch {
	case !filepath.IsAbs(value):
		p.say(name, "is not an absolute path: start it with /")
	case len(filepath.Join(value, socketName)) > maxSocket:
		p.say(name, fmt.Sprintf("is too long for the socket in it: name one of at most %d bytes", maxSocket-len("/"+socketName)))
	}
	return value
}

func (p *problems) logger(w io.Writer, level, format string) *slog.Logger {
	var options slog.HandlerOptions
	var l slog.Level
	if l.UnmarshalText([]byte(p.oneOf("AGENT_LOG_LEVEL", strings.ToLower(level), "debug", "info", "warn", "error"))) == nil {
		options.Level = l
	}
	if p.oneOf("AGENT_LOG_FORMAT", strings.ToLower(format), "json", "text") == "text" {
		return slog.New(slog.NewTextHandler(w, &options))
	}
	return slog.New(slog.NewJSONHandler(w, &options))
}

// fileName is what a rendered file may be called. Names that start with a dot are the sink's own, and longer than the file.
var fileName = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,199}$`)

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
			p.say(name, where+"the file's name may have up to 200 of a-z, 0-9, dot, dash and underscore, and starts with a letter or digit")
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

// validate returns the files to prove. The default names one that the secrets needn't have, and then a note says so.
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
		default:
			p.note(name, "no file is called gemini-api-key, so no key is proven at Gemini before it is published: name those that hold one, or off")
		}
	}
	return files
}

// unknown refuses variables with our prefix that are within two letters of one we know, and notes the others: platforms
// inject variables of their own, AGENT_NAME or AGENT_SERVICE_HOST for instance.
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
			p.note(name, "is not a variable of the agent and is ignored")
		}
	}
}

// names returns the variables with our prefix.
func names() []string {
	var b strings.Builder
	envconfig.Usagef(prefix, &variables{}, &b, "{{range .}}{{usage_key .}} {{end}}")
	return strings.Fields(b.String())
}

// valueOf returns the value of the variable called name, "" if it is unset.
func valueOf(environ []string, name string) string {
	for _, entry := range environ {
		if value, found := strings.CutPrefix(entry, name+"="); found {
			return value
		}
	}
	return ""
}
