package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

const house = "github.com/keyturn/keyturn/"

// Who links one of these talks to Gemini, or to Vault.
var (
	geminiSDKs = []string{"github.com/google/generative-ai-go/...", "google.golang.org/genai/...", "cloud.google.com/go/ai/..."}
	vaultSDKs  = []string{"github.com/hashicorp/vault/..."}
)

// graph holds the packages by their path.
type graph map[string]goPackage

// goPackage is what go list says of a package.
type goPackage struct {
	ImportPath, Name string
	Standard         bool
	Imports          []string // as built, without tests
	TestImports      []string
	XTestImports     []string
}

// rule forbids packages to import others, by themselves or, if linked is set, through others. A pattern is a path; with
// /... at its end, all beneath it as well; std is the standard library, house all of ours.
type rule struct {
	says   string
	from   []string
	except []string // of from
	allow  []string // nothing else may be imported
	forbid []string // these may not
	linked bool
	tests  bool // also of tests
}

var rules = []rule{
	{says: "the agent never imports the app", from: []string{house + "agent/..."}, forbid: []string{house + "app/..."}, linked: true, tests: true},
	{says: "the app never imports the agent", from: []string{house + "app/..."}, forbid: []string{house + "agent/..."}, linked: true, tests: true},
	{says: "the app links no Vault", from: []string{house + "app/..."}, forbid: vaultSDKs, linked: true},
	{says: "the agent links no Gemini SDK", from: []string{house + "agent/..."}, forbid: geminiSDKs, linked: true},
	{says: "secret imports the standard library alone", from: []string{house + "agent/internal/secret"}, allow: []string{"std"}},
	{says: "source imports secret", from: []string{house + "agent/internal/source"}, allow: []string{"std", house + "agent/internal/secret"}},
	{says: "a driver knows the contract and its own SDK, no other driver, no loop and no sink",
		from:   []string{house + "agent/internal/source/..."},
		except: []string{house + "agent/internal/source", house + "agent/internal/source/sourcetest"},
		allow:  []string{"std", "outside", house + "agent/internal/source", house + "agent/internal/secret"}},
	{says: "turn knows source and secret, and what it declares itself",
		from: []string{house + "agent/internal/turn"}, allow: []string{"std", "outside", house + "agent/internal/source", house + "agent/internal/secret"}},
	{says: "turn knows no store's SDK", from: []string{house + "agent/internal/turn"}, forbid: vaultSDKs, linked: true},
	{says: "sink knows no network", from: []string{house + "agent/internal/sink"}, forbid: []string{"net", "net/http"}, linked: true},
	{says: "swap imports the standard library alone", from: []string{house + "app/swap"}, allow: []string{"std"}},
	{says: "keyfile imports fsnotify and nothing of ours",
		from: []string{house + "app/keyfile"}, allow: []string{"std", "github.com/fsnotify/fsnotify", "golang.org/x/sys/unix"}},
	{says: "only gemini imports an SDK", from: []string{house + "..."}, except: []string{house + "app/gemini"}, forbid: geminiSDKs, tests: true},
	{says: "only Vault's driver imports Vault's client", from: []string{house + "agent/...", house + "app/..."},
		except: []string{house + "agent/internal/source/vault"}, forbid: vaultSDKs},
	{says: "nothing imports a main", from: []string{house + "..."}, forbid: []string{"main"}, tests: true},
}

func TestNobodyImportsWhatTheDesignForbids(t *testing.T) {
	packages := list(t)
	for _, r := range rules {
		if !slices.ContainsFunc(r.from, func(pattern string) bool { return packages.has(pattern) }) {
			t.Errorf("%q is about packages that don't exist", r.says)
		}
		for _, broken := range packages.breaches(r) {
			t.Errorf("%s, yet %s", r.says, broken)
		}
	}
}

// Each rule finds a breach that is made on purpose: one that could not fail would hold nothing.
func TestEachImportRuleCanFail(t *testing.T) {
	outside := func(name string, imports ...string) goPackage {
		return goPackage{ImportPath: name, Name: path.Base(name), Imports: imports}
	}
	for _, c := range []struct {
		from, to string
		through  string
		says     []string
	}{
		{from: "agent", to: house + "app/gemini", says: []string{"the agent never imports the app"}},
		{from: "agent", to: house + "app/gemini", through: house + "examples/vaulttest", says: []string{"the agent never imports the app"}},
		{from: "app/client", to: house + "agent/internal/secret", says: []string{"the app never imports the agent"}},
		{from: "app", to: "github.com/hashicorp/vault/api", through: "example.org/x", says: []string{"the app links no Vault"}},
		{from: "agent/internal/gate", to: "google.golang.org/genai", says: []string{"the agent links no Gemini SDK", "only gemini imports an SDK"}},
		{from: "agent/internal/secret", to: "golang.org/x/sys/unix", says: []string{"secret imports the standard library alone"}},
		{from: "agent/internal/source", to: house + "agent/internal/turn", says: []string{"source imports secret"}},
		{from: "agent/internal/source/file", to: house + "agent/internal/source/vault", says: []string{"a driver knows"}},
		{from: "agent/internal/source/file", to: house + "agent/internal/sink", says: []string{"a driver knows"}},
		{from: "agent/internal/turn", to: house + "agent/internal/sink", says: []string{"turn knows source and secret"}},
		{from: "agent/internal/turn", to: "github.com/hashicorp/vault/api", through: house + "agent/internal/source", says: []string{"turn knows no store's SDK"}},
		{from: "agent/internal/sink", to: "net", through: "golang.org/x/net/netutil", says: []string{"sink knows no network"}},
		{from: "app/swap", to: house + "app/keyfile", says: []string{"swap imports the standard library alone"}},
		{from: "app/keyfile", to: house + "app/swap", says: []string{"keyfile imports fsnotify"}},
		{from: "app/client", to: "github.com/google/generative-ai-go/genai", says: []string{"only gemini imports an SDK"}},
		{from: "agent/internal/control", to: "github.com/hashicorp/vault/api", says: []string{"only Vault's driver"}},
		{from: "examples/e2e", to: house + "app", says: []string{"nothing imports a main"}},
	} {
		next := c.to
		g := graph{c.to: {ImportPath: c.to, Name: path.Base(c.to), Standard: c.to == "net"}}
		if c.to == house+"app" {
			g[c.to] = goPackage{ImportPath: c.to, Name: "main"}
		}
		if c.through != "" {
			next = c.through
			g[c.through] = outside(c.through, c.to)
		}
		g[house+c.from] = outside(house+c.from, next)
		for _, says := range c.says {
			at := slices.IndexFunc(rules, func(r rule) bool { return strings.HasPrefix(r.says, says) })
			if len(g.breaches(rules[at])) == 0 {
				t.Errorf("%q doesn't find that %s imports %s (through %q)", rules[at].says, c.from, c.to, c.through)
			}
		}
	}
}

// list asks the go command for every package of the module and all that they link.
func list(t *testing.T) graph {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Name,Standard,Imports,TestImports,XTestImports", house+"...")
	var problems bytes.Buffer
	cmd.Stderr = &problems
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, &problems)
	}
	packages := graph{}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages[p.ImportPath] = p
	}
}

// breaches says, of each package that breaks r, which import does.
func (g graph) breaches(r rule) []string {
	var found []string
	for name, p := range g {
		if !matches(name, r.from) || matches(name, r.except) {
			continue
		}
		imports := p.Imports
		if r.tests {
			imports = slices.Concat(imports, p.TestImports, p.XTestImports)
		}
		for _, to := range imports {
			if way := g.breach(r, to, map[string]bool{name: true}); way != "" {
				found = append(found, name+" imports "+way)
			}
		}
	}
	slices.Sort(found)
	return found
}

// breach returns the way from an import to what r forbids, or nothing.
func (g graph) breach(r rule, to string, seen map[string]bool) string {
	if seen[to] {
		return ""
	}
	seen[to] = true
	if r.allow != nil && !g.is(to, r.allow) || r.forbid != nil && g.is(to, r.forbid) {
		return to
	}
	if r.linked {
		for _, next := range g[to].Imports {
			if way := g.breach(r, next, seen); way != "" {
				return to + ", which imports " + way
			}
		}
	}
	return ""
}

// is says whether a package is among those that the patterns of allow or forbid mean.
func (g graph) is(name string, patterns []string) bool {
	ours := strings.HasPrefix(name, house)
	for _, pattern := range patterns {
		switch pattern {
		case "std":
			if g[name].Standard || name == "C" || name == "unsafe" {
				return true
			}
		case "outside":
			if !ours && !g[name].Standard {
				return true
			}
		case "main":
			if g[name].Name == "main" && ours {
				return true
			}
		}
	}
	return matches(name, patterns)
}

// has says whether there is a package that the pattern means.
func (g graph) has(pattern string) bool {
	for name := range g {
		if matches(name, []string{pattern}) {
			return true
		}
	}
	return false
}

func matches(name string, patterns []string) bool {
	return slices.ContainsFunc(patterns, func(pattern string) bool {
		above, deep := strings.CutSuffix(pattern, "/...")
		return name == above || deep && strings.HasPrefix(name, above+"/")
	})
}
