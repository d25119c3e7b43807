package vault

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// mount is what Vault says of the engine that a path leads to.
type mount struct {
	path string // as it begins the paths of our user, with a slash at its end
	kv   int    // 1 or 2; 0 for an engine of another type
	told time.Time
}

// mounts remembers the answers, so that each mount is asked for once a session, or once a minute while secrets are missing.
// The zero value is ready.
type mounts struct {
	questions flights[string, struct{}]
	mu        sync.RWMutex
	known     map[string]mount
}

// find looks for the mount of path. Vault nests none in another, so the first that fits is the one.
func (m *mounts) find(path string) (mount, bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	for i := range len(path) {
		if path[i] == '/' {
			if known, ok := m.known[path[:i+1]]; ok {
				return known, true
			}
		}
	}
	return mount{}, false
}

func (m *mounts) learn(new mount) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.known == nil {
		m.known = map[string]mount{}
	}
	m.known[new.path] = new
}

// doubt forgets a mount that may have been made anew, unless that was asked a moment ago: most secrets that are missing
// are just missing.
func (m *mounts) doubt(old mount) {
	if time.Since(old.told) > patience {
		m.forget(old)
	}
}

func (m *mounts) forget(gone mount) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.known, gone.path)
}

// mountOf says where path's mount ends and which KV version it is. Those who ask below the same first segment, and so most
// likely for the same mount, wait for the first one's answer; what was refused to him says nothing about them.
func (s *session) mountOf(ctx context.Context, c *client, path string) (mount, error) {
	first, _, _ := strings.Cut(path, "/")
	for {
		if m, ok := s.mounts.find(path); ok {
			return m, nil
		}
		mine := false
		_, err := s.mounts.questions.do(ctx, first, func() (struct{}, error) {
			if _, ok := s.mounts.find(path); ok {
				return struct{}{}, nil
			}
			mine = true
			m, err := s.askMount(ctx, c, path)
			if err == nil {
				s.mounts.learn(m)
			}
			return struct{}{}, err
		})
		if err != nil && (mine || isContext(err) || kindOf(err).StoreWide()) {
			return mount{}, err
		}
	}
}

// askMount asks Vault. A token that may read something below a mount may ask.
func (s *session) askMount(ctx context.Context, c *client, path string) (mount, error) {
	var answer struct {
		Data *struct {
			Path, Type string
			Options    map[string]json.RawMessage
		}
	}
	err := c.ask(ctx, request{method: http.MethodGet, path: "sys/internal/ui/mounts/" + path, token: s.token, again: true}, &answer)
	if f, refused := undecided(err); refused {
		return mount{}, f.as(source.Denied, path,
			"permission denied: give the agent's policy \"read\" on it (with data/ after the mount for KV version 2), and check that the mount exists")
	}
	if err != nil {
		return mount{}, err
	}
	if answer.Data == nil || !strings.HasSuffix(answer.Data.Path, "/") { // without its slash find wouldn't find it
		return mount{}, notVault()
	}
	m := mount{path: within(path, answer.Data.Path), told: time.Now()}
	if m.path == "" {
		return mount{}, fail(source.Invalid, path, "Vault says that it belongs to another mount: write the path as \"vault kv get\" takes it")
	}
	if answer.Data.Type == "kv" || answer.Data.Type == "generic" {
		m.kv = 1
		if strings.Trim(string(answer.Data.Options["version"]), `"`) == "2" {
			m.kv = 2
		}
	}
	return m, nil
}

// within returns the beginning of path that leads to the mount at, or "". A namespace may stand before either of them.
func within(path, at string) string {
	for rest := at; rest != "" && rest != "/"; {
		if strings.HasPrefix(path, rest) {
			return rest
		}
		_, rest, _ = strings.Cut(rest, "/")
	}
	if i := strings.Index(path, "/"+at); at != "" && i >= 0 {
		return path[:i+1+len(at)]
	}
	return ""
}
