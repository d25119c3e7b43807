package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/keyturn/keyturn/agent/internal/confine"
)

// Values of AGENT_CONFINE.
const (
	confineOff        = "off"
	confineBestEffort = "best-effort"
	confineRequire    = "require"
)

// confinement is what the agent allows itself while it runs.
type confinement struct {
	mode  string
	rules confine.Rules
	// missing says what the configuration keeps from being confined, or closes for good, a sentence each.
	missing []string
}

// confinement reads what must stay allowed: the directories of all files that the configuration names, and the ports of all
// addresses. gemini is empty if Gemini is never asked.
func (p *problems) confinement(v variables, gemini string, environ []string) confinement {
	c := confinement{mode: p.oneOf("AGENT_CONFINE", v.Confine, confineBestEffort, confineRequire, confineOff)}
	get := func(name string) string { return valueOf(environ, name) }
	c.rules.Connect = p.connect(v, gemini, get)
	if c.mode == confineOff {
		return c
	}
	c.rules.ReadFiles = procFiles
	c.rules.Read = slices.Clone(systemDirs)
	homes := confine.FindHomes(get("HOME"), "/etc/passwd")
	var wide, closed []string
	say := func(list *[]string, r reading, problem string) {
		*list = append(*list, r.name+" "+problem)
		if c.mode == confineRequire {
			p.say(r.name, problem+", or set AGENT_CONFINE=best-effort")
		}
	}
	for _, r := range readings(v, get) {
		if len(r.dirs) == 0 {
			say(&closed, r, "holds no path, so what it names would stay closed: write the path of a file")
		}
		for _, dir := range r.dirs {
			if confine.Within(dir, c.rules.Read...) {
				continue
			}
			if homes.TooWide(dir) {
				say(&wide, r, "leads into "+r.shown(dir)+", which is the root, a home or above one, so reading can't be confined: put the file into a directory of its own")
			} else if reason := closedBecause(dir); reason != "" {
				say(&closed, r, "leads into "+r.shown(dir)+", "+reason)
			} else {
				c.rules.Read = append(c.rules.Read, dir)
			}
		}
	}
	c.missing = closed
	if len(wide) > 0 {
		// Landlock takes no exceptions from what it allows, and a rule on the file alone would die with it, so it is all or
		// nothing. What is missing is not closed then.
		c.rules.Read, c.missing = []string{"/"}, wide
	}
	return c
}

// closedBecause says why no rule can be made for a directory; "" if one can.
func closedBecause(dir string) string {
	_, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Sprintf("which uid %d can't look into, so it would stay closed: open what is above it before the agent starts", os.Geteuid())
	case err != nil:
		return "which is missing and would stay closed: make it before the agent starts"
	}
	return ""
}

// errNotConfined is what apply returns, wrapped, where AGENT_CONFINE=require and something is missing.
var errNotConfined = errors.New("AGENT_CONFINE=require")

// apply confines the process. dir is where it renders. It returns what is missing, in words for the log; all else is in force.
func (c confinement) apply(dir string) (missing []string, err error) {
	if c.mode == confineOff {
		return nil, nil
	}
	_, _ = time.Now().Zone() // loads time.Local while its file can be read
	rules := c.rules
	rules.Write = writable(dir)
	return c.judge(append(slices.Clone(c.missing), confine.Apply(rules)...))
}

// judge makes an error of what is missing if nothing may be.
func (c confinement) judge(missing []string) ([]string, error) {
	if c.mode == confineRequire && len(missing) > 0 {
		return nil, fmt.Errorf("%w, and %s: use a kernel that can, or set it to best-effort", errNotConfined, strings.Join(missing, "; "))
	}
	return missing, nil
}

// writable returns dir or, if dir is alone in it, the directory above: then a directory that somebody has replaced can be
// repaired, since a rule holds for the directory that it was made for.
func writable(dir string) []string {
	parent := filepath.Dir(dir)
	if entries, err := os.ReadDir(parent); err == nil && len(entries) == 1 && parent != "/" {
		return []string{parent}
	}
	return []string{dir}
}
