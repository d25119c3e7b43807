package e2e

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/examples/internal/load"
	"github.com/keyturn/keyturn/examples/porttest"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

// keyName is the file that everything here is about, unless a setting says otherwise.
const keyName = "gemini-api-key"

// world is a whole system: a Vault, what may go wrong on the way to it, an agent, an app, a stand-in for Gemini, requests
// that go on whatever happens, and a reader that looks at the key's file all the time. All of it logs at debug level.
type world struct {
	t         *testing.T
	vault     *vaulttest.Server
	front     *front
	proxy     *faultProxy
	lossy     *lossy
	gemini    *geminitest.Server
	agent     *agent
	app       *process
	appURL    string
	appListen string
	dir       string
	file      string // its name
	uid       uint32 // of agent and app; 0: ours
	build     func(t testing.TB, half string) string

	secret, policy   string
	mount, role      string // of AppRole, if the agent logs in by it
	token            string // else
	roleID, secretID string // files
	login            []string
	reach            []string
	current          string   // the key in force
	secrets          []string // all that may come out nowhere

	mu       sync.Mutex
	readable map[string]bool // what the file may hold
	torn     string          // what it held instead
	absences []absence       // of the app
	said     strings.Builder // by agents and apps that have ended
}

// newWorld prepares all but agent and app.
func newWorld(t *testing.T, s setting) *world {
	t.Helper()
	w := &world{t: t, uid: s.uid, file: cmp.Or(s.file, keyName), appListen: porttest.Loopback(t), secret: unique(), policy: unique(),
		readable: map[string]bool{}, gemini: geminitest.NewServer(), build: ours.build}
	t.Cleanup(w.gemini.Close)
	if s.build != nil {
		w.build = s.build
	}
	if s.ownVault {
		w.vault = vaulttest.ForTest(t, vaulttest.Options{Listen: porttest.Loopback(t)})
	} else {
		w.vault = plainVault(t)
	}
	w.front = newFront(t, w.vault)
	w.reach = []string{"VAULT_ADDR=http://" + w.front.host}
	switch s.way {
	case proxied:
		w.proxy = newFaultProxy(t, w.front.host)
		w.reach = []string{"VAULT_ADDR=http://" + w.proxy.listen}
	case forgotten:
		w.lossy = newLossy(t, w.front.host)
		w.reach = []string{"VAULT_ADDR=http://" + w.lossy.listen}
	}
	w.dir = filepath.Join(w.own(memory(t)), "keys")
	if s.dir != nil {
		w.dir = s.dir(w)
	}
	w.rotate()
	allow(t, w.vault, w.policy, w.secret)
	if s.appRole {
		w.byAppRole()
	} else {
		w.token = newValue()
		w.secrets = append(w.secrets, w.token)
		w.makeToken()
		w.login = []string{"AGENT_TOKEN_FILE=" + w.own(file(t, w.token))}
	}
	return w
}

// path returns where the key is rendered.
func (w *world) path() string { return filepath.Join(w.dir, w.file) }

// own hands a path to who agent and app run as.
func (w *world) own(path string) string {
	w.t.Helper()
	if w.uid == 0 {
		return path
	}
	for _, p := range []string{path, filepath.Dir(path)} {
		if filepath.Dir(p) != "/dev" && p != "/dev/shm" {
			if err := os.Chown(p, int(w.uid), int(w.uid)); err != nil {
				w.t.Fatal(err)
			}
		}
	}
	return path
}

func (w *world) makeToken() {
	w.t.Helper()
	r := &api.TokenCreateRequest{ID: w.token, Policies: []string{w.policy}}
	must[*api.Secret](w.t)(w.vault.Client().Auth().Token().Create(r))
}

func (w *world) byAppRole() {
	w.t.Helper()
	path, environ := appRole(w.t, w.vault, w.policy)
	w.mount = strings.TrimPrefix(environ[1], "AGENT_AUTH_MOUNT=")
	w.role = path
	w.roleID = strings.TrimPrefix(environ[2], "AGENT_ROLE_ID_FILE=")
	w.secretID = file(w.t, "")
	w.newSecretID()
	w.login = append(environ, "AGENT_SECRET_ID_FILE="+w.secretID)
}

func (w *world) newSecretID() {
	w.t.Helper()
	id := write(w.t, w.vault, w.role+"/secret-id", nil).Data["secret_id"].(string)
	w.secrets = append(w.secrets, id)
	rewrite(w.t, w.secretID, id)
}

// logOut revokes all tokens that the agent got by logging in.
func (w *world) logOut() {
	w.t.Helper()
	if err := w.vault.Client().Sys().RevokePrefix("auth/" + w.mount); err != nil {
		w.t.Fatal(err)
	}
}

// rotate puts a new key into Vault, which Gemini accepts; it accepts the old one as well.
func (w *world) rotate() {
	w.t.Helper()
	w.current = newValue()
	w.secrets = append(w.secrets, w.current)
	w.mu.Lock()
	w.readable[w.current] = true
	w.mu.Unlock()
	w.gemini.Add(w.current)
	w.put()
}

func (w *world) put() {
	w.t.Helper()
	put(w.t, w.vault, w.secret, map[string]any{"k": w.current})
}

func (w *world) asOwner(c *exec.Cmd) {
	if w.uid != 0 {
		asNobody(c)
		c.SysProcAttr.Credential.Uid, c.SysProcAttr.Credential.Gid = w.uid, w.uid
	}
}

// startAgent starts an agent that reads once a second, and returns when it listens.
func (w *world) startAgent(options ...func(*exec.Cmd)) {
	w.t.Helper()
	environ := append(append([]string{"AGENT_SECRETS=" + w.file + "=secret/" + w.secret + "#k", "AGENT_VALIDATE=" + w.file,
		"GOOGLE_GEMINI_BASE_URL=" + w.gemini.URL, "AGENT_POLL_INTERVAL=1s", "AGENT_LOG_LEVEL=debug", "AGENT_ON_EXIT=keep", "GOTRACEBACK=all"}, w.login...), w.reach...)
	built := func(c *exec.Cmd) { c.Path = w.build(w.t, "agent") }
	w.agent = startAgent(w.t, w.dir, environ, append([]func(*exec.Cmd){w.asOwner, built}, options...)...).started(w.t)
}

// startApp starts an app and returns when it listens.
func (w *world) startApp() {
	w.t.Helper()
	w.app = start(w.t, w.build(w.t, "app"), []string{"HOME=/nonexistent", "APP_LISTEN=" + w.appListen, "APP_KEY_FILE=" + w.path(),
		"GOOGLE_GEMINI_BASE_URL=" + w.gemini.URL, "APP_MODEL=m", "APP_LOG_LEVEL=debug", "GOTRACEBACK=all"}, w.asOwner)
	w.app.awaitLine(w.t, "started")
	w.appURL = "http://" + w.appListen
}

func (w *world) serves() {
	w.t.Helper()
	eventually(w.t, "the app is ready", func() bool {
		status, _ := get(w.t, w.appURL+"/readyz")
		return status == 200
	})
}

// generation returns the app's number of the key that it serves with.
func (w *world) generation() uint64 {
	w.t.Helper()
	_, body := get(w.t, w.appURL+"/status")
	var s struct{ Generation uint64 }
	if err := json.Unmarshal(body, &s); err != nil {
		w.t.Fatal(err)
	}
	return s.Generation
}

// watch reads the file until stop is closed, and notes what it may not be: no key, or not dated after the one before it.
func (w *world) watch(stop <-chan struct{}) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	var last os.FileInfo
	for {
		b, info, err := readFile(w.path())
		w.mu.Lock()
		switch {
		case w.torn != "":
		case err != nil || !w.readable[string(b)]:
			w.torn = fmt.Sprintf("%d bytes that are no key (%v)", len(b), err)
		case last != nil && !os.SameFile(info, last) && !info.ModTime().After(last.ModTime()):
			w.torn = fmt.Sprintf("a file of %v after one of %v", info.ModTime(), last.ModTime())
		}
		w.mu.Unlock()
		last = cmp.Or(info, last)
		select {
		case <-tick.C:
		case <-stop:
			return
		}
	}
}

// readFile returns the content of a file and what the system says of it.
func readFile(path string) ([]byte, os.FileInfo, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	b, err := io.ReadAll(f)
	return b, info, err
}

// rate is how many requests are due a second; a quarter of them are streamed.
const rate = 40

// ask sends requests until stop is closed.
func (w *world) ask(stop <-chan struct{}) []load.Record {
	return load.Run(w.t.Context(), stop, load.Config{
		URL: w.appURL, Rate: rate, Streams: 0.25, Limit: 1 << 30, Prompt: func(id int) string { return fmt.Sprintf("request %d", id) },
	})
}
