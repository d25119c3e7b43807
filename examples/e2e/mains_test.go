package e2e

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// reserved is what only a program's main package may use: a library that reads the environment, takes signals or exits
// does so behind its caller's back.
var reserved = map[string][]string{
	"os":                                   {"Getenv", "LookupEnv", "Environ", "ExpandEnv", "Setenv", "Unsetenv", "Clearenv", "Exit", "Args"},
	"syscall":                              {"Getenv", "Environ", "Setenv", "Exit"},
	"log":                                  {"Fatal", "Fatalf", "Fatalln"},
	"os/signal":                            {"*"},
	"flag":                                 {"*"},
	"github.com/kelseyhightower/envconfig": {"*"},
}

func TestOnlyMainReadsTheEnvironmentTakesSignalsAndExits(t *testing.T) {
	root := repository(t)
	files := 0
	for _, half := range []string{"agent", "app"} {
		err := filepath.WalkDir(filepath.Join(root, half), func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			files++
			uses, err := reservedUses(path, nil)
			for _, use := range uses {
				t.Error(use)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 20 {
		t.Errorf("only %d files were looked at", files)
	}
}

func TestAReservedUseIsFoundUnderAnyName(t *testing.T) {
	for _, c := range []struct {
		source string
		uses   int
	}{
		{"package x\nimport \"os\"\nvar _ = os.Getenv(\"A\")", 1},
		{"package x\nimport system \"os\"\nfunc f() { system.Exit(1) }", 1},
		{"package x\nimport \"os\"\nvar exit = os.Exit", 1},
		{"package x\nimport . \"os\"\nvar _ = Getenv(\"A\")", 1},
		{"package x\nimport \"os/signal\"\nfunc f() { signal.Ignore() }", 1},
		{"package x\nimport \"log\"\nfunc f() { log.Fatalf(\"\") }", 1},
		{"package x\nimport \"os\"\nvar _, _ = os.Open(\"Getenv\")", 0},
		{"package main\nimport \"os\"\nvar _ = os.Getenv(\"A\")", 0},
	} {
		uses, err := reservedUses("x.go", c.source)
		if err != nil || len(uses) != c.uses {
			t.Errorf("%q: %d found, want %d (%v)", c.source, len(uses), c.uses, err)
		}
	}
}

// reservedUses names what a file, or source if it is given, uses of what is reserved for a main package.
func reservedUses(path string, source any) ([]string, error) {
	files := token.NewFileSet()
	file, err := parser.ParseFile(files, path, source, parser.SkipObjectResolution)
	if err != nil || file.Name.Name == "main" {
		return nil, err
	}
	var found []string
	names := map[string]string{} // what the file calls a package: its path
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return nil, err
		}
		name := imported[strings.LastIndex(imported, "/")+1:]
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = imported
		if name == "." {
			found = append(found, files.Position(spec.Pos()).String()+": a dot import hides what is used")
		}
	}
	ast.Inspect(file, func(n ast.Node) bool {
		selector, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		name, ok := selector.X.(*ast.Ident)
		if !ok {
			return true
		}
		kept := reserved[names[name.Name]]
		if slices.Contains(kept, selector.Sel.Name) || slices.Contains(kept, "*") {
			found = append(found, files.Position(n.Pos()).String()+": "+name.Name+"."+selector.Sel.Name+" is for main alone")
		}
		return true
	})
	return found, nil
}

// repository returns the directory of the main module.
func repository(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs(filepath.Join("..", ".."))
	if err != nil {
		t.Fatal(err)
	}
	return root
}
