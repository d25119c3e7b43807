package sink

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// changes are what somebody may do to a rendered file or its directory, and what Drift says of it.
var changes = []struct {
	name, found string
	do          func(dir string) error
}{
	{"content, in place", "other content", func(dir string) error { return write(filepath.Join(dir, "key"), "planted") }},
	{"content of the same size, with the old mtime", "touched", func(dir string) error {
		path := filepath.Join(dir, "key")
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		return errors.Join(write(path, strings.Repeat("x", len(driftKey))), os.Chtimes(path, info.ModTime(), info.ModTime()))
	}},
	{"emptied", "other content", func(dir string) error { return os.Truncate(filepath.Join(dir, "key"), 0) }},
	{"mode", "mode 0644", func(dir string) error { return os.Chmod(filepath.Join(dir, "key"), 0o644) }},
	{"deleted", "no file", func(dir string) error { return os.Remove(filepath.Join(dir, "key")) }},
	{"another file", "another file", func(dir string) error {
		return errors.Join(write(filepath.Join(dir, "other"), driftKey), os.Rename(filepath.Join(dir, "other"), filepath.Join(dir, "key")))
	}},
	{"a second name", "a second name", func(dir string) error {
		return os.Link(filepath.Join(dir, "key"), filepath.Join(filepath.Dir(dir), "stolen"))
	}},
	{"a link", "a link", func(dir string) error {
		return errors.Join(os.Remove(filepath.Join(dir, "key")), os.Symlink("/etc/hostname", filepath.Join(dir, "key")))
	}},
	{"a directory", "a directory", func(dir string) error {
		return errors.Join(os.Remove(filepath.Join(dir, "key")), os.MkdirAll(filepath.Join(dir, "key", "deep"), 0o700))
	}},
	{"the directory's mode", "a directory of mode 0755", func(dir string) error { return os.Chmod(dir, 0o755) }},
	{"the directory, gone", "no directory", os.RemoveAll},
	{"the directory, replaced", "another directory", func(dir string) error {
		return errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o700))
	}},
}

const driftKey = "AQ.the-key-in-force"

func write(path, content string) error { return os.WriteFile(path, []byte(content), 0o600) }

func TestWhateverIsChangedIsFoundAndPutBack(t *testing.T) {
	for _, change := range changes {
		t.Run(change.name, func(t *testing.T) {
			dir := filepath.Join(memory(t), "keys")
			d := open(t, dir)
			first, _ := render(t, d, "key", driftKey)
			if found := d.Drift("key"); found != "" {
				t.Fatalf("nobody touched it, and it found %q", found)
			}
			if err := change.do(dir); err != nil {
				t.Fatal(err)
			}
			if found := d.Drift("key"); !strings.Contains(found, change.found) || strings.Contains(found, "planted") {
				t.Errorf("found %q, want %q", found, change.found)
			}
			id, _, err := d.Render("key", secret.New([]byte(driftKey)))
			if err != nil {
				t.Fatal(err)
			}
			if found := d.Drift("key"); found != "" {
				t.Errorf("after the repair it finds %q", found)
			}
			content, err := os.ReadFile(filepath.Join(dir, "key"))
			if err != nil || string(content) != driftKey {
				t.Errorf("the file holds something else: %v", err)
			}
			info, err := os.Lstat(filepath.Join(dir, "key"))
			if err != nil || info.Mode() != mode {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			if id == first && change.name != "the directory's mode" {
				t.Error("a repaired file goes by the identity of the one before")
			}
		})
	}
}

func TestAFileThatWasNeverRenderedIsNone(t *testing.T) {
	d := open(t, memory(t))
	if found := d.Drift("key"); found != "no file" {
		t.Errorf("%q", found)
	}
}

func BenchmarkDrift(b *testing.B) {
	d := open(b, memory(b))
	render(b, d, "key", driftKey)
	for b.Loop() {
		if d.Drift("key") != "" {
			b.Fatal("it was touched")
		}
	}
}
