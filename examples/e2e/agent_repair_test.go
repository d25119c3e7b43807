package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// repairing is an agent whose files are tampered with.
type repairing struct {
	*agent
	value, key string
}

// newRepairing starts an agent that renders key to a directory that is alone in its parent. It runs as we do, so that we may
// ask at its socket, unless it is to run asNobody.
func newRepairing(t *testing.T, as ...func(*exec.Cmd)) repairing {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	parent := memory(t)
	token := tokenFile(t, v, allow(t, v, unique(), secret))
	if len(as) > 0 {
		give(t, parent, token)
	}
	environ := append(reach(v), "AGENT_TOKEN_FILE="+token, entries("key="+secret))
	a := startAgent(t, filepath.Join(parent, "keys"), environ, as...).started(t).ready(t)
	return repairing{a, value, a.path("key")}
}

// identity is how the app names the file that it read.
type identity struct {
	Inode   uint64 `json:"inode"`
	ModTime int64  `json:"mtime_ns"`
}

func identityOf(info os.FileInfo) identity {
	return identity{info.Sys().(*syscall.Stat_t).Ino, info.ModTime().UnixNano()}
}

// repairs returns how often the agent says that it repaired the key.
func (a repairing) repairs(t *testing.T) int {
	t.Helper()
	n, _ := a.metric(t, "keyturn_agent_repairs_total", `file="key"`)
	return int(n)
}

// found returns what the agent says that it found, and repaired, so far.
func (a repairing) found() (all []string) {
	for line := range strings.Lines(a.stderr.String()) {
		var l struct{ Level, Msg, Found string }
		if json.Unmarshal([]byte(line), &l) == nil && l.Level == "WARN" && strings.HasPrefix(l.Msg, "repaired") {
			all = append(all, l.Msg+": "+l.Found)
		}
	}
	return all
}

// isWhole reports whether the file and its directory are as a render leaves them.
func (a repairing) isWhole() bool {
	dir, err := os.Lstat(a.dir)
	if err != nil || dir.Mode() != 0o700|os.ModeDir {
		return false
	}
	info, err := os.Lstat(a.key)
	return err == nil && info.Mode() == 0o600 && links(info) == 1 && int(info.Sys().(*syscall.Stat_t).Uid) == owner() && holds(a.key, a.value)
}

// What somebody does to the file or its directory is undone within a second, counted, and told in one line.
func TestFilesThatSomebodyChangedAreRepaired(t *testing.T) {
	a := newRepairing(t, asNobody)
	key, dir := a.key, a.dir
	for _, c := range []struct {
		what, found string
		change      func() error
	}{
		{"deleted", "file: no file", func() error { return os.Remove(key) }},
		{"overwritten", "file: other content", func() error { return os.WriteFile(key, []byte("x"), 0o600) }},
		{"overwritten with the same bytes", "file: a file that was touched", func() error { return os.WriteFile(key, []byte(a.value), 0o600) }},
		{"overwritten and dated as before", "file: other content", func() error {
			info, err := os.Stat(key)
			return errors.Join(err, os.WriteFile(key, bytes.Repeat([]byte("x"), len(a.value)), 0o600), os.Chtimes(key, info.ModTime(), info.ModTime()))
		}},
		{"touched", "file: a file that was touched", func() error { return os.Chtimes(key, time.Now(), time.Now()) }},
		{"emptied", "file: other content", func() error { return os.Truncate(key, 0) }},
		{"opened to others", "file: mode 0644", func() error { return os.Chmod(key, 0o644) }},
		{"given to root", "file: owner 0", func() error { return chown(key, 0) }},
		{"given a second name", "file: a second name", func() error { return os.Link(key, filepath.Join(filepath.Dir(dir), "second")) }},
		{"replaced by a link", "file: a link", func() error { return replace(key, func() error { return os.Symlink("/etc/passwd", key) }) }},
		{"replaced by a pipe", "file: a pipe", func() error { return replace(key, func() error { return unix.Mkfifo(key, 0o600) }) }},
		{"replaced by a tree", "file: a directory", func() error {
			return replace(key, func() error {
				err := os.MkdirAll(filepath.Join(key, "x", "y"), 0o700)
				give(t, key, filepath.Join(key, "x"), filepath.Join(key, "x", "y"))
				return err
			})
		}},
		{"replaced by a tree that nobody may look into", "file: a directory", func() error {
			return replace(key, func() error {
				err := os.MkdirAll(filepath.Join(key, "x", "y"), 0o700)
				give(t, key, filepath.Join(key, "x"))
				return errors.Join(err, os.Chmod(filepath.Join(key, "x"), 0), os.Chmod(key, 0))
			})
		}},
		{"in a directory that others may look into", "directory: mode 0755", func() error { return os.Chmod(dir, 0o755) }},
		{"in a directory that nobody may look into", "directory: mode 0000", func() error { return os.Chmod(dir, 0) }},
		{"in a directory that was removed", "directory: no directory", func() error { return os.RemoveAll(dir) }},
		{"in a directory that was made anew", "directory: another directory", func() error {
			err := errors.Join(os.Rename(dir, dir+".old"), os.Mkdir(dir, 0o755), os.Chmod(dir, 0o755))
			give(t, dir)
			return err
		}},
		{"in a directory that was replaced by a link to it", "directory: a link", func() error {
			return errors.Join(os.RemoveAll(dir+".old"), os.Rename(dir, dir+".old"), os.Symlink("keys.old", dir))
		}},
		{"in a directory that was replaced by a file", "directory: a file", func() error {
			return errors.Join(os.RemoveAll(dir), os.WriteFile(dir, nil, 0o600))
		}},
	} {
		if c.found == "file: owner 0" && os.Geteuid() != 0 {
			continue
		}
		repairs, lines, before := a.repairs(t), len(a.found()), identityOf(must[os.FileInfo](t)(os.Stat(key)))
		if err := c.change(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		// A repair is counted and told a moment after it was made.
		eventually(t, "the file is repaired after it was "+c.what, func() bool { return a.repairs(t) > repairs && len(a.found()) > lines && a.isWhole() })
		if now := identityOf(must[os.FileInfo](t)(os.Stat(key))); now == before {
			t.Errorf("%s: the repaired file goes by the identity of the one before", c.what)
		}
		if n := a.repairs(t) - repairs; n != 1 {
			t.Errorf("%s: %d repairs are counted", c.what, n)
		}
		if got := a.found()[lines:]; len(got) != 1 || got[0] != "repaired the "+c.found {
			t.Errorf("%s: it tells %q, want %q", c.what, got, c.found)
		}
	}
	for _, l := range a.log() {
		if l.Level == "WARN" && !strings.HasPrefix(l.Msg, "repaired") && !aboutSocket(l) {
			t.Errorf("beside the repairs it warns: %s (%s)", l.Msg, l.Reason)
		}
	}
}

// aboutSocket reports whether a line is about the socket, which goes with the directory.
func aboutSocket(l logged) bool { return strings.HasPrefix(l.Msg, "the socket ") }

func replace(path string, by func() error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return by()
}

func chown(path string, uid int) error { return os.Chown(path, uid, uid) }

// ask puts a question to the agent's socket and returns the status and, of an answer in JSON, its outcome.
func (a repairing) ask(t *testing.T, what string, body map[string]any) (status int, outcome string) {
	t.Helper()
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", a.path("agent.sock"))
		}}}
	response := must[*http.Response](t)(client.Post("http://agent/"+what, "application/json", bytes.NewReader(must[[]byte](t)(json.Marshal(body)))))
	defer response.Body.Close()
	var answer struct{ Outcome string }
	json.NewDecoder(response.Body).Decode(&answer)
	return response.StatusCode, answer.Outcome
}

// An app acknowledges the file that it reads, and asks for another because of it, also after somebody touched it.
func TestAFileThatWasTouchedIsStillKnown(t *testing.T) {
	a := newRepairing(t)
	repairs := a.repairs(t)
	if err := os.Chtimes(a.key, time.Now(), time.Now()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the touched file is repaired", func() bool { return a.repairs(t) > repairs })
	id := identityOf(must[os.FileInfo](t)(os.Stat(a.key)))
	if status, _ := a.ask(t, "ack", map[string]any{"file": "key", "identity": id, "at": time.Now()}); status != http.StatusNoContent {
		t.Errorf("an acknowledgement of the file that is there: HTTP %d", status)
	}
	if _, outcome := a.ask(t, "refresh", map[string]any{"file": "key", "identity": id}); outcome != "unchanged" {
		t.Errorf("a refresh for the file that is there comes to %q: the store wasn't asked", outcome)
	}
}

// Whoever changes the file without pause, and asks for refreshes meanwhile, has it put back once a second.
func TestRepairsAreBoundedWhateverIsAsked(t *testing.T) {
	a := newRepairing(t)
	began, before := time.Now(), a.repairs(t)
	for time.Since(began) < 3*time.Second {
		if err := os.Chmod(a.key, 0o640); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
		a.ask(t, "refresh", map[string]any{"file": "key", "identity": identityOf(must[os.FileInfo](t)(os.Stat(a.key)))})
	}
	if n, most := a.repairs(t)-before, int(time.Since(began)/time.Second)+1; n < 1 || n > most || len(a.found()) > most {
		t.Errorf("%d repairs and %d lines in %v", n, len(a.found()), time.Since(began))
	}
}

// A descriptor that was opened while the file was being written stays good for writing once it is in place.
func TestWhatWasPlantedThroughAnOpenDescriptorIsReplaced(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	const file = "key.written"
	environ := append(reach(v), "AGENT_TOKEN_FILE="+tokenFile(t, v, allow(t, v, unique(), secret)), entries(file+"="+secret))
	a := startAgent(t, filepath.Join(memory(t), "keys"), environ, func(c *exec.Cmd) { c.Path = stoppable(t) })
	var planted *os.File
	eventually(t, "the agent stops in its write", func() bool {
		found, _ := filepath.Glob(filepath.Join(a.dir, ".*.tmp-*"))
		if len(found) != 1 || a.state(t) != "T" {
			return false
		}
		planted = must[*os.File](t)(os.OpenFile(found[0], os.O_WRONLY, 0))
		return true
	})
	defer planted.Close()
	must[int](t)(planted.WriteAt(bytes.Repeat([]byte("x"), len(value)), 0))
	eventually(t, "what was planted is replaced", func() bool {
		a.signal(syscall.SIGCONT) // it stops in every write
		return holds(a.path(file), value)
	})
	if !strings.Contains(a.stderr.String(), `"found":"other content"`) {
		t.Error("it doesn't say what it found")
	}
}

// What can't be repaired is told once, and repaired as soon as it can be.
func TestADirectoryThatCannotBeRepairedIsToldOnce(t *testing.T) {
	v := plainVault(t)
	secret, _ := newSecret(t, v)
	parent := memory(t)
	token := tokenFile(t, v, allow(t, v, unique(), secret))
	mkdir(t, filepath.Join(parent, "neighbour"), 0o700) // with it, a confined agent may not write in parent
	give(t, parent, token)
	environ := append(reach(v), "AGENT_TOKEN_FILE="+token, entries("key="+secret, "other="+secret), "AGENT_CONFINE=require")
	a := startAgent(t, filepath.Join(parent, "keys"), environ, asNobody).started(t).ready(t)
	old := a.dir + ".old"
	if err := errors.Join(os.Rename(a.dir, old), os.Mkdir(a.dir, 0o700)); err != nil {
		t.Fatal(err)
	}
	give(t, a.dir)
	told := func(l logged) bool { return strings.HasPrefix(l.Msg, "the directory can't be repaired") }
	eventually(t, "it says that it can't repair the directory", func() bool { return a.count(told) > 0 })
	if wants := a.waits(t, "key"); !strings.Contains(wants, "restart the agent") {
		t.Errorf("/readyz says %q", wants)
	}
	<-time.After(2500 * time.Millisecond)
	if n := a.count(func(l logged) bool { return l.Level == "WARN" && !aboutSocket(l) }); n != 1 {
		t.Errorf("%d lines, want one", n)
	}
	if err := errors.Join(os.Remove(a.dir), os.Rename(old, a.dir)); err != nil {
		t.Fatal(err)
	}
	value := newValue()
	put(t, v, secret, map[string]any{"k": value})
	eventually(t, "it follows once its directory is back", func() bool { return holds(a.path("key"), value) && holds(a.path("other"), value) })
}

// Neither what somebody planted under the names that the agent uses nor a directory in the key's place keeps it from
// starting, working and ending.
func TestPlantedDirectoriesAreNoObstacle(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	token := tokenFile(t, v, allow(t, v, unique(), secret))
	dir := mkdir(t, filepath.Join(memory(t), "keys"), 0o700)
	give(t, dir, token)
	plant := func(name string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Join(path, "x"), 0o700); err != nil {
			t.Fatal(err)
		}
		give(t, path, filepath.Join(path, "x"))
	}
	plant(".a.tmp-b")
	plant("key")
	a := startAgent(t, dir, append(reach(v), "AGENT_TOKEN_FILE="+token, entries("key="+secret)), asNobody).started(t).ready(t)
	assertRendered(t, a.path("key"), value)
	if got := strings.Join(names(t, dir), " "); got != "agent.sock key" {
		t.Errorf("in the directory are %s", got)
	}
	a.signal(syscall.SIGSTOP)
	if err := os.Remove(a.path("key")); err != nil {
		t.Fatal(err)
	}
	plant("key")
	a.signal(syscall.SIGTERM)
	a.signal(syscall.SIGCONT)
	if code := a.exit(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got := names(t, dir); len(got) > 0 {
		t.Errorf("it leaves %q", fmt.Sprint(got))
	}
}
