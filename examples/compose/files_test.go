//go:build compose

package compose

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// files writes a tar archive. Its first error ends it, and is what close returns.
type files struct {
	w   *tar.Writer
	err error
}

func newFiles(w io.Writer) *files { return &files{w: tar.NewWriter(w)} }

func (a *files) close() error { return errors.Join(a.err, a.w.Close()) }

func (a *files) directory(name string, mode int64, uid, gid int) {
	a.add(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: mode, Uid: uid, Gid: gid}, nil)
}

func (a *files) link(target, name string) {
	a.add(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target}, nil)
}

func (a *files) bytes(content []byte, name string, mode int64) {
	a.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content))}, bytes.NewReader(content))
}

// file adds what path leads to, links followed, with its mode.
func (a *files) file(path, name string, uid, gid int) {
	if a.err != nil {
		return
	}
	content, err := os.Open(path)
	if err != nil {
		a.err = err
		return
	}
	defer content.Close()
	info, err := content.Stat()
	if err != nil {
		a.err = err
		return
	}
	a.add(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: int64(info.Mode().Perm()), Size: info.Size(), Uid: uid, Gid: gid}, content)
}

// tree adds a file, or a directory and all beneath it but tests.
func (a *files) tree(path, name string) {
	err := filepath.WalkDir(path, func(at string, entry fs.DirEntry, err error) error {
		if err != nil || a.err != nil {
			return err
		}
		switch to := filepath.Join(name, strings.TrimPrefix(at, path)); {
		case entry.IsDir() && entry.Name() == "testdata":
			return fs.SkipDir
		case entry.IsDir():
			a.directory(to, 0o755, 0, 0)
		case !strings.HasSuffix(at, "_test.go"):
			a.file(at, to, 0, 0)
		}
		return nil
	})
	if a.err == nil {
		a.err = err
	}
}

func (a *files) add(h *tar.Header, content io.Reader) {
	if a.err != nil {
		return
	}
	if a.err = a.w.WriteHeader(h); a.err == nil && content != nil {
		_, a.err = io.Copy(a.w, content)
	}
}
