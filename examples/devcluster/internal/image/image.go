// Package image writes container images FROM scratch, in the format of "docker save", which every engine reads.
package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// Image is an image of one layer. Its programs run as uid and gid 65532 unless they are told otherwise.
type Image struct {
	// Name is NAME or NAME:TAG; a NAME without a slash is completed as container engines do.
	Name string
	// Root is a directory whose content is the image's; empty: none.
	Root string
	// Files are copied to the image's root, each under its own name, mode 0755. The first is the entry point.
	Files []string
}

// Write writes the archive. Equal content makes equal bytes.
func (i Image) Write(w io.Writer) error {
	var layer bytes.Buffer
	if err := i.layer(&layer); err != nil {
		return err
	}
	config, err := json.Marshal(i.config(fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))))
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]any{map[string]any{
		"Config": "config.json", "RepoTags": []string{i.reference()}, "Layers": []string{"layer.tar"},
	}})
	if err != nil {
		return err
	}
	archive := tar.NewWriter(w)
	for _, f := range []struct {
		name    string
		content []byte
	}{{"layer.tar", layer.Bytes()}, {"config.json", config}, {"manifest.json", manifest}} {
		header := &tar.Header{Name: f.name, Mode: 0o644, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		if _, err := archive.Write(f.content); err != nil {
			return err
		}
	}
	return archive.Close()
}

func (i Image) reference() string {
	if strings.Contains(i.Name, "/") {
		return i.Name
	}
	return "docker.io/library/" + i.Name
}

func (i Image) config(layer string) any {
	settings := map[string]any{"User": "65532:65532"}
	if len(i.Files) > 0 {
		settings["Entrypoint"] = []string{"/" + filepath.Base(i.Files[0])}
	}
	return map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": settings,
		"rootfs": map[string]any{"type": "layers", "diff_ids": []string{layer}},
	}
}

func (i Image) layer(w io.Writer) error {
	layer := tar.NewWriter(w)
	if i.Root != "" {
		err := filepath.WalkDir(i.Root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || path == i.Root {
				return err
			}
			name, err := filepath.Rel(i.Root, path)
			if err != nil {
				return err
			}
			return add(layer, path, name, -1)
		})
		if err != nil {
			return err
		}
	}
	for _, path := range i.Files {
		if err := add(layer, path, filepath.Base(path), 0o755); err != nil {
			return err
		}
	}
	return layer.Close()
}

// add copies path into the layer as name, as root's and without its time; mode -1 is its own.
func add(layer *tar.Writer, path, name string, mode int64) error {
	info, err := os.Lstat(path)
	if err != nil {
		return err
	}
	target := ""
	if info.Mode()&fs.ModeSymlink != 0 {
		if target, err = os.Readlink(path); err != nil {
			return err
		}
	}
	header, err := tar.FileInfoHeader(info, target)
	if err != nil {
		return err
	}
	clean := tar.Header{Name: name, Linkname: header.Linkname, Typeflag: header.Typeflag, Mode: header.Mode, Size: header.Size}
	if info.IsDir() {
		clean.Name += "/"
	}
	if mode >= 0 {
		clean.Mode = mode
	}
	if err := layer.WriteHeader(&clean); err != nil || !info.Mode().IsRegular() {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(layer, f)
	return err
}
