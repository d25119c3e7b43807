package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// source makes a root with a directory, a file and a link, and a program beside it.
func source(t *testing.T) Image {
	dir := t.TempDir()
	root, program := filepath.Join(dir, "root"), filepath.Join(dir, "program")
	if err := os.MkdirAll(filepath.Join(root, "usr/bin"), 0o755); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(
		os.WriteFile(filepath.Join(root, "usr/bin/tool"), []byte("tool"), 0o640),
		os.Symlink("tool", filepath.Join(root, "usr/bin/link")),
		os.WriteFile(program, []byte("program"), 0o600),
	)
	if err != nil {
		t.Fatal(err)
	}
	return Image{Name: "thing:1", Root: root, Files: []string{program}}
}

func write(t *testing.T, i Image) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := i.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

type entry struct {
	header  *tar.Header
	content []byte
}

func entries(t *testing.T, archive []byte) map[string]entry {
	t.Helper()
	all := map[string]entry{}
	for r := tar.NewReader(bytes.NewReader(archive)); ; {
		header, err := r.Next()
		if err == io.EOF {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		all[header.Name] = entry{header, content}
	}
}

func TestAnImageHasItsFilesAndRunsTheFirst(t *testing.T) {
	archive := entries(t, write(t, source(t)))
	layer := archive["layer.tar"].content
	files := entries(t, layer)
	if f := files["program"]; string(f.content) != "program" || f.header.Mode != 0o755 {
		t.Errorf("the program is %q, mode %o", f.content, f.header.Mode)
	}
	if f := files["usr/bin/tool"]; string(f.content) != "tool" || f.header.Mode != 0o640 {
		t.Errorf("the tool is %q, mode %o", f.content, f.header.Mode)
	}
	if f := files["usr/bin/link"]; f.header == nil || f.header.Linkname != "tool" {
		t.Errorf("the link is %+v", f.header)
	}
	var config struct {
		Config struct {
			User       string
			Entrypoint []string
		}
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(archive["config.json"].content, &config); err != nil {
		t.Fatal(err)
	}
	if c := config.Config; c.User != "65532:65532" || len(c.Entrypoint) != 1 || c.Entrypoint[0] != "/program" {
		t.Errorf("it runs %v as %s", c.Entrypoint, c.User)
	}
	if want := fmt.Sprintf("sha256:%x", sha256.Sum256(layer)); len(config.RootFS.DiffIDs) != 1 || config.RootFS.DiffIDs[0] != want {
		t.Errorf("its layer is %v, want %s", config.RootFS.DiffIDs, want)
	}
}

func TestEqualContentMakesEqualBytes(t *testing.T) {
	i := source(t)
	before := write(t, i)
	if err := os.Chtimes(i.Files[0], time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, write(t, i)) {
		t.Error("another time of a file makes another image")
	}
}

func TestAMissingFileIsAnError(t *testing.T) {
	err := Image{Name: "thing", Files: []string{filepath.Join(t.TempDir(), "missing")}}.Write(io.Discard)
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestANameWithoutARegistryIsCompleted(t *testing.T) {
	for name, want := range map[string]string{"thing:1": "docker.io/library/thing:1", "registry.example.com/thing": "registry.example.com/thing"} {
		if got := (Image{Name: name}).reference(); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}
