package e2e

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write README.md's tables of variables anew")

// Each table of variables in README.md is what the program prints: go test ./examples/e2e -run Readme -update writes it.
func TestTheReadmesTablesAreWhatTheProgramsPrint(t *testing.T) {
	path := filepath.Join(repository(t), "README.md")
	readme := string(must[[]byte](t)(os.ReadFile(path)))
	for _, half := range []string{"agent", "app"} {
		begin, end := "<!-- keyturn-"+half+" -h -->\n", "<!-- end -->"
		before, rest, found := strings.Cut(readme, begin)
		is, after, ended := strings.Cut(rest, end)
		if !found || !ended {
			t.Fatalf("README.md has no table between %q and %q", begin, end)
		}
		want := table(t, string(must[[]byte](t)(exec.CommandContext(t.Context(), ours.build(t, half), "-h").Output())))
		if is != want && !*update {
			t.Errorf("README.md's table of keyturn-%s is not what it prints; the test's flag -update writes it:\n%s", half, want)
		}
		readme = before + begin + want + end + after
	}
	if *update {
		if err := os.WriteFile(path, []byte(readme), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// variable is a line of -h: the name, what it means, and its default in brackets.
var variable = regexp.MustCompile(`(?m)^  ([A-Z][A-Z0-9_]+)  +(.*?)(?: \[([^\]]*)\])?$`)

// table turns what -h prints into a table of Markdown.
func table(t *testing.T, help string) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("| variable | default | meaning |\n|---|---|---|\n")
	rows := variable.FindAllStringSubmatch(help, -1)
	if len(rows) < 8 {
		t.Fatalf("-h names %d variables only", len(rows))
	}
	for _, row := range rows {
		value := row[3]
		if value != "" {
			value = "`" + value + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", row[1], value, strings.ReplaceAll(row[2], "|", `\|`))
	}
	return b.String()
}

// A claim that no test holds is worth nothing, and a test that README.md names may have been renamed.
func TestTheReadmeNamesTestsThatExist(t *testing.T) {
	root := repository(t)
	there := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Benchmark|Fuzz)[A-Z]\w*)\(`)
	eachFile(t, root, "_test.go", func(content string) {
		for _, m := range declared.FindAllStringSubmatch(content, -1) {
			there[m[1]] = true
		}
	})
	readme := string(must[[]byte](t)(os.ReadFile(filepath.Join(root, "README.md"))))
	named := regexp.MustCompile(`\b(?:Test|Benchmark|Fuzz)[A-Z]\w*`).FindAllString(readme, -1)
	if len(named) < 20 {
		t.Errorf("README.md names only %d tests", len(named))
	}
	for _, name := range named {
		if !there[name] {
			t.Errorf("README.md names %s, which doesn't exist", name)
		}
	}
	for row := range strings.Lines(readme) {
		if strings.HasPrefix(row, "| ") && strings.Contains(row, ". |") && !strings.Contains(row, "`Test") {
			t.Errorf("README.md promises what no test holds: %s", row)
		}
	}
}

func TestTheReadmesCommandsAndLinksExist(t *testing.T) {
	root := repository(t)
	readme := string(must[[]byte](t)(os.ReadFile(filepath.Join(root, "README.md"))))
	makefile := string(must[[]byte](t)(os.ReadFile(filepath.Join(root, "Makefile"))))
	for _, m := range regexp.MustCompile(`(?m)(?:^|\x60)make ([a-z-]+)`).FindAllStringSubmatch(readme, -1) {
		if !strings.Contains(makefile, "\n"+m[1]+":") {
			t.Errorf("README.md says make %s, which doesn't exist", m[1])
		}
	}
	paths := regexp.MustCompile(`\]\(([^)#:]+)\)|\b(examples/[a-z0-9/.-]*[a-z0-9])`).FindAllStringSubmatch(readme, -1)
	if len(paths) < 5 {
		t.Errorf("README.md names only %d files", len(paths))
	}
	for _, m := range paths {
		if _, err := os.Stat(filepath.Join(root, m[1]+m[2])); err != nil {
			t.Errorf("README.md names what isn't there: %v", err)
		}
	}
}

// eachFile calls see with the content of every file beneath root whose name has the suffix.
func eachFile(t *testing.T, root, suffix string, see func(content string)) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, suffix) {
			return err
		}
		content, err := os.ReadFile(path)
		see(string(content))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
