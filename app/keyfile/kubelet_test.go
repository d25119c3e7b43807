package keyfile

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// kubelet's writer of volumes (pkg/volume/util/atomic_writer.go) keeps the files in a hidden directory with a time stamp,
// to which the link ..data points. Each visible name is a link through ..data; to change them all, ..data is replaced. The
// stories below are those of its own test, told from the reader's side.

type projected struct {
	content string
	mode    fs.FileMode
}

type payload map[string]projected

// volume is a directory as kubelet makes it, with the steps in kubelet's order.
type volume struct {
	testing.TB
	dir string
	now payload
}

func (v *volume) write(next payload) {
	v.Helper()
	if maps.Equal(next, v.now) { // kubelet writes only what differs
		return
	}
	old, _ := os.Readlink(filepath.Join(v.dir, "..data"))
	fresh, err := os.MkdirTemp(v.dir, time.Now().UTC().Format("..2006_01_02_15_04_05."))
	must(v, err, os.Chmod(fresh, 0o755))
	for name, file := range next {
		path := filepath.Join(fresh, name)
		must(v, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(file.content), file.mode), os.Chmod(path, file.mode))
	}
	for name := range next {
		first, _, _ := strings.Cut(name, "/")
		if err := os.Symlink(filepath.Join("..data", first), filepath.Join(v.dir, first)); !errors.Is(err, fs.ErrExist) {
			must(v, err)
		}
	}
	must(v, os.Symlink(filepath.Base(fresh), filepath.Join(v.dir, "..data_tmp")))
	must(v, os.Rename(filepath.Join(v.dir, "..data_tmp"), filepath.Join(v.dir, "..data")))
	for name := range v.now {
		first, _, nested := strings.Cut(name, "/")
		if _, stays := next[name]; !stays && !nested {
			must(v, os.Remove(filepath.Join(v.dir, first)))
		}
	}
	if old != "" {
		must(v, os.RemoveAll(filepath.Join(v.dir, old)))
	}
	v.now = next
}

func TestWriteOnce(t *testing.T) {
	const binary = "\x7fELF\x02\x01\x01\x00"
	for _, c := range []struct {
		what    string
		name    string
		payload payload
		want    error
	}{
		{"basic", "foo", payload{"foo": {canary, 0o600}, "bar": {"other", 0o644}}, nil},
		{"basic mode", "foo", payload{"foo": {canary, 0o400}}, nil},
		{"the group's mode", "foo", payload{"foo": {canary, 0o440}}, nil},
		{"kubelet's default mode", "foo", payload{"foo": {canary, 0o644}}, ErrMode},
		{"everybody's mode", "foo", payload{"foo": {canary, 0o777}}, ErrMode},
		{"binary", "binary.bin", payload{"binary.bin": {binary, 0o400}, ".binary.bin": {canary, 0o400}}, ErrNoHeader},
		{"a newline", "foo", payload{"foo": {canary + "\n", 0o400}}, ErrNewline},
		{"empty", "foo", payload{"foo": {"", 0o400}}, ErrEmpty},
		{"dotfile", ".foo", payload{".foo": {canary, 0o400}, "foo": {"other", 0o400}}, nil},
		{"subdirectory", "foo/bar.txt", payload{"foo/bar.txt": {canary, 0o400}, "bar/zab.txt": {"other", 0o400}}, nil},
		{"deep subdirectory", "1/2/3/4/5/6/7/8/9/10/.dotfile.lib", payload{"1/2/3/4/5/6/7/8/9/10/.dotfile.lib": {canary, 0o400}}, nil},
		{"a directory", "foo", payload{"foo/bar.txt": {canary, 0o400}}, ErrNotRegular},
		{"missing", "foo", payload{"bar": {"other", 0o400}}, fs.ErrNotExist},
	} {
		t.Run(c.what, func(t *testing.T) {
			v := &volume{TB: t, dir: t.TempDir()}
			path := filepath.Join(v.dir, c.name)
			keys := consume(t, New(Config{Path: path, AllowGroup: true, Tick: 10 * time.Millisecond}))
			keys.error(fs.ErrNotExist, path)
			v.write(c.payload)
			if c.want == fs.ErrNotExist {
				render(t, filepath.Join(v.dir, c.name), "at-last")
				keys.key("at-last")
				return
			}
			i := keys.next()
			if errors.Is(i.err, fs.ErrNotExist) && c.want != fs.ErrNotExist { // now its directory is there
				i = keys.next()
			}
			if !errors.Is(i.err, c.want) || c.want == nil && i.Key.Reveal() != canary {
				t.Errorf("%v; want error %v", i, c.want)
			}
		})
	}
}

func TestUpdate(t *testing.T) {
	other := projected{"other", 0o400}
	for _, c := range []struct {
		what        string
		name        string
		first, next payload
		want        string // the key that comes; "" if an error does, and "-" if nothing does
	}{
		{"update", "foo", payload{"foo": {"foo", 0o400}, "bar": other}, payload{"foo": {"foo2", 0o400}, "bar": other}, "foo2"},
		{"no update", "foo", payload{"foo": {"foo", 0o400}, "bar": other}, payload{"foo": {"foo", 0o400}, "bar": other}, "-"},
		{"no update in a subdirectory", "foo/bar", payload{"foo/bar": {"foo", 0o400}}, payload{"foo/bar": {"foo", 0o400}}, "-"},
		{"update in a subdirectory", "foo/bar", payload{"foo/bar": {"foo", 0o400}}, payload{"foo/bar": {"foo2", 0o400}}, "foo2"},
		{"update of another", "foo", payload{"foo": {"foo", 0o400}, "bar": other}, payload{"foo": {"foo", 0o400}, "bar": {"bar2", 0o400}}, "foo"},
		{"add another", "foo", payload{"foo": {"foo", 0o400}}, payload{"foo": {"foo", 0o400}, "blu/zip": other}, "foo"},
		{"delete another", "foo", payload{"foo": {"foo", 0o400}, "bar": other}, payload{"foo": {"foo", 0o400}}, "foo"},
		{"delete", "foo", payload{"foo": {"foo", 0o400}, "bar": other}, payload{"bar": other}, ""},
		{"delete in a subdirectory", "foo/bar", payload{"foo/bar": {"foo", 0o400}, "foo/zab": other}, payload{"foo/zab": other}, ""},
		{"spoilt by a mode", "foo", payload{"foo": {"foo", 0o400}}, payload{"foo": {"foo", 0o444}}, ""},
	} {
		t.Run(c.what, func(t *testing.T) {
			v := &volume{TB: t, dir: t.TempDir()}
			v.write(c.first)
			path := filepath.Join(v.dir, c.name)
			w := New(Config{Path: path, Tick: 10 * time.Millisecond})
			keys := consume(t, w)
			first := keys.key("foo")
			v.write(c.next)
			switch c.want {
			case "-":
				v.write(payload{c.name: {"and-then", 0o400}})
				keys.key("and-then")
			case "":
				if i := keys.next(); i.err == nil {
					t.Errorf("%v; want an error", i)
				}
				v.write(c.first)
				keys.key("foo")
			default:
				if next := keys.key(c.want); next.Identity == first.Identity {
					t.Errorf("another file has the identity of the first, %v", next.Identity)
				}
			}
		})
	}
}

// One after the other, with nothing but events to tell of them: a swap is not a moment without a key.
func TestMultipleUpdates(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		v := &volume{TB: t, dir: dir}
		v.write(payload{"foo": {"foo", 0o400}, "bar": {"bar", 0o400}})
		keys := consume(t, New(Config{Path: filepath.Join(dir, "foo"), Tick: never}))
		keys.key("foo")
		for _, content := range []string{"foo2", "foo3", "foo3-and-longer", "4", "foo"} {
			v.write(payload{"foo": {content, 0o400}, "bar": {"bar" + content, 0o400}})
			keys.key(content)
		}
		v.write(payload{"bar": {"bar", 0o400}})
		keys.error(fs.ErrNotExist, filepath.Join(dir, "foo"))
		v.write(payload{"foo": {"back", 0o400}})
		keys.key("back")
		keys.stop()
		keys.nothing()
	})
}
