package confine

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree makes files, and links where the content begins with ->, below a directory whose own path has no links.
func tree(t *testing.T, content map[string]string) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range content {
		path := filepath.Join(root, name)
		err := os.MkdirAll(filepath.Dir(path), 0o700)
		if link, is := strings.CutPrefix(text, "->"); is {
			err = errors.Join(err, os.Symlink(link, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(text), 0o600))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestTheDirectoriesOfAFileAreItsOwnAndWhereItLeads(t *testing.T) {
	root := tree(t, map[string]string{
		"creds/plain": "x", "creds/linked": "->../elsewhere/real", "creds/dangling": "->../elsewhere/not-yet", "creds/lost": "->/nowhere/at/all",
		"elsewhere/real": "x", "alias": "->creds", "pod/..1/token": "x", "pod/..data": "->..1", "pod/token": "->..data/token",
		"early/token": "->..data/token", "loop": "->loop",
	})
	for file, want := range map[string][]string{
		"creds/plain":     {"creds"},
		"creds/not-yet":   {"creds"},
		"creds/linked":    {"creds", "elsewhere"},
		"creds/dangling":  {"creds", "elsewhere"},
		"alias/not-yet":   {"creds"},
		"alias/linked":    {"creds", "elsewhere"},
		"pod/token":       {"pod"},
		"early/token":     {"early"},
		"missing/not-yet": {"missing"},
		"loop":            {""},
	} {
		for i := range want {
			want[i] = filepath.Join(root, want[i])
		}
		if got := OfFile(filepath.Join(root, file)); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
	if got := OfFile(filepath.Join(root, "creds/lost")); !slices.Equal(got, []string{filepath.Join(root, "creds"), "/nowhere/at"}) {
		t.Errorf("a link to what isn't there: %q", got)
	}
}

func TestTheDirectoriesOfADirectoryAreItsOwnAndWhereItsFilesLead(t *testing.T) {
	root := tree(t, map[string]string{
		"certs/a.pem": "x", "certs/hash.0": "->a.pem", "certs/b.pem": "->../bundle/b.pem", "certs/c.pem": "->../bundle/c.pem", "certs/old": "->../gone/d.pem",
		"certs/more": "->../home", "bundle/b.pem": "x", "bundle/c.pem": "x", "home/mine": "x", "alias": "->certs",
	})
	want := []string{filepath.Join(root, "certs"), filepath.Join(root, "bundle")}
	for _, dir := range []string{"certs", "alias", "certs/a.pem"} {
		if got := OfDirectory(filepath.Join(root, dir)); !slices.Equal(got, want[:len(got)]) || dir != "certs/a.pem" && len(got) != 2 {
			t.Errorf("%s: %q, want %q", dir, got, want)
		}
	}
}

func TestTheRootAndHomesAndWhatIsAboveThemAreTooWide(t *testing.T) {
	root := tree(t, map[string]string{
		"srv/app/x": "x", "users/ann/x": "x", "var/lib/vault/x": "x", "moved/x": "x", "moved-here": "->moved",
	})
	in := func(path string) string { return filepath.Join(root, path) }
	passwd := in("passwd")
	if err := os.WriteFile(passwd, []byte("root:x:0:0:root:/toor:/bin/sh\nnot a line\nann:x:1000:1000::"+in("users/ann")+":/bin/sh\n"+
		"vault:x:998:998::"+in("var/lib/vault")+":/bin/false\nnobody:x:65534:65534::"+in("srv/app")+":/bin/false\nempty:x:1001:1::/:\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	homes := FindHomes(in("moved-here"), passwd)
	for dir, want := range map[string]bool{
		"/": true, "/root": true, "/toor": true, "/home": true, "/home/anybody": true, "/home/anybody/secrets": false, "/root/secrets": false,
		"/etc/keyturn": false, "/run": false, "/roots": false, "/homes/x": false,
		in("users/ann"): true, in("users"): true, root: true, in("users/ann/secrets"): false, in("moved"): true, in("moved/secrets"): false,
		in("var/lib/vault"): false, in("srv/app"): false,
	} {
		if got := homes.TooWide(dir); got != want {
			t.Errorf("%s is too wide: %t, want %t", dir, got, want)
		}
	}
	if homes := FindHomes("", in("no-passwd")); homes.TooWide("/run") || !homes.TooWide("/root") {
		t.Errorf("without a home and a passwd: %q", homes)
	}
}
