package e2e

import (
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/keyturn/keyturn/examples/lagtest"
)

// leaving is an agent that logged in by itself, and a Vault that tells when it gives its token back.
type leaving struct {
	*agent
	// revoking gets what lies in the agent's directory when the revocation of its token arrives.
	revoking chan []string
}

// newLeaving starts an agent and waits until it is ready. With revokes, Vault revokes; otherwise it never answers that.
func newLeaving(t *testing.T, revokes bool) leaving {
	t.Helper()
	v := plainVault(t)
	secret, _ := newSecret(t, v)
	between := newFront(t, v)
	environ := append(byAppRole(t, v, allow(t, v, unique(), secret)), entries("key="+secret), "VAULT_ADDR=http://"+between.host)
	a := leaving{startAgent(t, filepath.Join(memory(t), "keys"), environ).started(t).ready(t), make(chan []string, 10)}
	between.answer(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/revoke-self") {
			entries, _ := os.ReadDir(a.dir)
			var found []string
			for _, e := range entries {
				found = append(found, e.Name())
			}
			a.revoking <- found
			if !revokes {
				io.Copy(io.Discard, r.Body) // or the end of the connection isn't noticed
				<-r.Context().Done()
				return
			}
		}
		between.next.ServeHTTP(w, r)
	})
	return a
}

// First nobody can connect any more, then the files are gone, then the token; and no temporary file is left.
func TestSignalsEndTheAgentInOrder(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			a := newLeaving(t, true)
			watcher := must[*fsnotify.Watcher](t)(fsnotify.NewWatcher())
			defer watcher.Close()
			if err := watcher.Add(a.dir); err != nil {
				t.Fatal(err)
			}
			a.signal(signal)
			if code := a.exit(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
			if left := names(t, a.dir); len(left) > 0 {
				t.Errorf("%q is left", left)
			}
			if n := len(a.revoking); n != 1 {
				t.Fatalf("the token was given back %d times", n)
			}
			if left := <-a.revoking; len(left) > 0 {
				t.Errorf("%q was there when the token was given back", left)
			}
			var removed []string
			for len(removed) < 2 {
				select {
				case e := <-watcher.Events:
					if e.Has(fsnotify.Remove) {
						removed = append(removed, filepath.Base(e.Name))
					}
				case <-time.After(patience):
					t.Fatalf("only %q was seen to go", removed)
				}
			}
			if !slices.Equal(removed, []string{"agent.sock", "key"}) {
				t.Errorf("the order was %q", removed)
			}
		})
	}
}

// Somebody who can't wait sends the signal again, and ends even an agent that waits for Vault.
func TestASecondSignalKills(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP} {
		t.Run(signal.String(), func(t *testing.T) {
			a := newLeaving(t, false)
			a.signal(syscall.SIGTERM)
			select {
			case <-a.revoking:
			case <-time.After(patience):
				t.Fatal("the agent doesn't give its token back")
			}
			if !a.runs() {
				t.Fatal("the agent didn't wait for Vault's answer")
			}
			clock := lagtest.Start(t)
			a.signal(signal)
			if code, took := a.exit(t), clock.Took(); code == 0 || took > time.Second {
				t.Errorf("it ended after %v with exit code %d", took, code)
			}
			if killed := a.cmd.ProcessState.Sys().(syscall.WaitStatus).Signal(); killed != signal {
				t.Errorf("it was ended by the signal %d, want %d", killed, signal)
			}
		})
	}
}

// A Vault that answers nothing delays the end by a few seconds, and the wipe not at all.
func TestTheEndIsBoundedWhateverVaultDoes(t *testing.T) {
	a := newLeaving(t, false)
	clock := lagtest.Start(t)
	if code, took := a.stop(t), clock.Took(); code != 0 || took > 6*time.Second {
		t.Errorf("it ended after %v with exit code %d", took, code)
	}
	if left := <-a.revoking; len(left) > 0 {
		t.Errorf("%q was there when the token was given back", left)
	}
}

// Who asks slowly, or doesn't read the answer, doesn't keep the key where it can be read.
func TestSlowClientsKeepNoFile(t *testing.T) {
	a := newLeaving(t, true)
	for _, first := range []string{"", "GET /livez HT", "POST /refresh HTTP/1.1\r\nHost: agent\r\nContent-Length: 99\r\n\r\n{"} {
		for network, address := range map[string]string{"tcp": strings.TrimPrefix(a.url, "http://"), "unix": a.path("agent.sock")} {
			c := must[net.Conn](t)(net.Dial(network, address))
			defer c.Close()
			must[int](t)(io.WriteString(c, first))
		}
	}
	a.metric(t, "keyturn_agent_ready", "") // answered after those have arrived
	clock := lagtest.Start(t)
	a.signal(syscall.SIGTERM)
	eventually(t, "the files are gone", func() bool {
		_, err := os.Lstat(a.path("key"))
		return err != nil
	})
	if took := clock.Took(); took > 800*time.Millisecond {
		t.Errorf("the files were there for another %v", took)
	}
	if code, took := a.exit(t), clock.Took(); code != 0 || took > 3*time.Second {
		t.Errorf("it ended after %v with exit code %d", took, code)
	}
}

// Whoever starts a program under nohup wants it to outlive the terminal.
func TestAnAgentUnderNohupOutlivesTheTerminal(t *testing.T) {
	underNohup := func(c *exec.Cmd) {
		c.Args = []string{"sh", "-c", `trap "" HUP; exec "$0"`, c.Path}
		c.Path = "/bin/sh"
	}
	environ := []string{"VAULT_ADDR=http://127.0.0.1:1", "AGENT_TOKEN_FILE=" + file(t, canary)}
	a := startAgent(t, filepath.Join(memory(t), "keys"), environ, underNohup).started(t)
	a.signal(syscall.SIGHUP)
	a.failures(t, "unavailable", 2)
	if code := a.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// What stands at the socket's place was left or planted: it gives way, also if it can't be removed, at the start and later.
func TestThePlaceOfTheSocketIsTaken(t *testing.T) {
	for what, plant := range map[string]func(path string) error{
		"a link to nowhere": func(path string) error { return os.Symlink("nowhere", path) },
		"a directory": func(path string) error {
			return os.MkdirAll(filepath.Join(path, "x"), 0o700)
		},
		"a directory that can't be emptied": func(path string) error {
			closed := filepath.Join(path, "closed")
			if err := os.MkdirAll(filepath.Join(closed, "x"), 0o700); err != nil {
				return err
			}
			give(t, path, closed)
			return os.Chmod(closed, 0)
		},
	} {
		t.Run(what, func(t *testing.T) {
			parent := memory(t)
			dir := mkdir(t, filepath.Join(parent, "keys"), 0o700)
			socket := filepath.Join(dir, "agent.sock")
			if err := plant(socket); err != nil {
				t.Fatal(err)
			}
			give(t, dir)
			environ := []string{"VAULT_ADDR=http://127.0.0.1:1", "AGENT_TOKEN_FILE=/nonexistent/token"}
			a := startAgent(t, dir, environ, asNobody).started(t)
			answers := func() bool {
				info, err := os.Lstat(socket)
				if err != nil || info.Mode() != fs.ModeSocket|0o600 {
					return false
				}
				c, err := net.Dial("unix", socket)
				if err == nil {
					c.Close()
				}
				return err == nil
			}
			eventually(t, "the socket is there", answers)
			<-time.After(time.Second) // it is made at most once a second
			if err := replace(socket, func() error { return plant(socket) }); err != nil {
				t.Fatal(err)
			}
			clock := lagtest.Start(t)
			eventually(t, "the socket is back", answers)
			if took := clock.Took(); took > time.Second {
				t.Errorf("the socket was back after %v", took)
			}
			if code := a.stop(t); code != 0 {
				t.Errorf("exit code %d", code)
			}
		})
	}
}
