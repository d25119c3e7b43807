package vault

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// mount is what Vault says of the engine that a path leads to.
type mount struct {
	path string // with a slash at its end
	kv   int    // 1 or 2; 0 for an engine of another type
}

// mounts remembers the answers, so that each mount is asked for once a session.
type mounts struct {
	mu    sync.Mutex // held through a question, so that those who come meanwhile share its answer
	known []mount
}

func (m *mounts) find(path string) (mount, bool) {
	for _, known := range m.known {
		if strings.HasPrefix(path, known.path) {
			return known, true
		}
	}
	return mount{}, false
}

func (m *mounts) forget(gone mount) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, known := range m.known {
		if known == gone {
			m.known = append(m.known[:i:i], m.known[i+1:]...)
			return
		}
	}
}

// mountOf says where path's mount ends and which KV version it is. A token that may read something below a mount may ask.
func (s *session) mountOf(ctx context.Context, path string) (mount, error) {
	s.mounts.mu.Lock()
	defer s.mounts.mu.Unlock()
	if m, ok := s.mounts.find(path); ok {
		return m, nil
	}
	var answer struct {
		Data struct {
			Path    string
			Type    string
			Options map[string]string
		}
	}
	err := s.client.call(ctx, "find the mount", http.MethodGet, "sys/internal/ui/mounts/"+path, nil, nil, &answer)
	if err != nil {
		return mount{}, about(path, err, func(e *source.Error) {
			if e.Kind == source.Denied {
				e.Reason = fmt.Sprintf("permission denied: give the agent's policy %q on it (with data/ after the mount for KV version 2), and check that the mount exists", "read")
			}
		})
	}
	m := mount{path: answer.Data.Path}
	if answer.Data.Type == "kv" || answer.Data.Type == "generic" {
		m.kv = 1
		if answer.Data.Options["version"] == "2" {
			m.kv = 2
		}
	}
	s.mounts.known = append(s.mounts.known, m)
	return m, nil
}

// document is the answer to a read. Fields that nobody asks for stay raw and are cleared with it.
type document struct {
	LeaseID       string                     `json:"lease_id"`
	LeaseDuration int                        `json:"lease_duration"`
	Data          map[string]json.RawMessage `json:"data"`
}

type metadata struct {
	Version      int       `json:"version"`
	CreatedTime  time.Time `json:"created_time"`
	DeletionTime string    `json:"deletion_time"`
	Destroyed    bool      `json:"destroyed"`
}

// read reads path, at a version of KV version 2 or at the newest if that is 0.
func (s *session) read(ctx context.Context, path string, version int) (*source.Record, error) {
	m, err := s.mountOf(ctx, path)
	if err != nil {
		return nil, err
	}
	if version > 0 && m.kv != 2 {
		return nil, &source.Error{Kind: source.NotFound, Path: path, Reason: "its engine keeps no earlier versions"}
	}
	at, query := path, map[string]string(nil)
	if m.kv == 2 {
		at = m.path + "data/" + strings.TrimPrefix(path, m.path)
	}
	if version > 0 {
		query = map[string]string{"version": strconv.Itoa(version)}
	}
	var doc document
	if err := s.client.call(ctx, "read", http.MethodGet, at, query, nil, &doc); err != nil {
		return nil, about(path, err, func(e *source.Error) { s.explain(e, m, at) })
	}
	if m.kv == 2 {
		return readV2(path, doc)
	}
	return readOther(path, doc, m)
}

// explain says what to do about a read that failed, and forgets a mount that may have been made anew.
func (s *session) explain(e *source.Error, m mount, at string) {
	switch e.Kind {
	case source.Denied:
		e.Reason = fmt.Sprintf("permission denied: give the agent's policy %q on %q", "read", at)
	case source.NotFound:
		s.mounts.forget(m)
		e.Reason = "there is no secret, or its newest version was deleted: write it"
		if rest := strings.TrimPrefix(e.Path, m.path); m.kv == 2 && strings.HasPrefix(rest, "data/") {
			e.Reason += fmt.Sprintf("; or name it %s, without data/", m.path+strings.TrimPrefix(rest, "data/"))
		}
	}
}

func readV2(path string, doc document) (*source.Record, error) {
	var inner struct {
		Data     map[string]json.RawMessage
		Metadata metadata
	}
	if unmarshal(doc.Data["data"], &inner.Data) != nil || unmarshal(doc.Data["metadata"], &inner.Metadata) != nil {
		return nil, &source.Error{Kind: source.Unavailable, Path: path, Reason: "the answer is not one of KV version 2: check what stands before Vault"}
	}
	if inner.Data == nil {
		return nil, &source.Error{Kind: source.NotFound, Path: path, Reason: "its newest version was deleted: write or undelete it"}
	}
	record := source.NewRecord(path, values(inner.Data))
	record.Version = secret.Version{Number: inner.Metadata.Version, Created: inner.Metadata.CreatedTime}
	clearAll(doc.Data)
	return record, nil
}

// readOther reads KV version 1, whose ttl field says when to ask again, and engines that lease what they give.
func readOther(path string, doc document, m mount) (*source.Record, error) {
	if doc.Data == nil {
		return nil, &source.Error{Kind: source.NotFound, Path: path, Reason: "there is no secret: write it"}
	}
	record := source.NewRecord(path, values(doc.Data))
	lease := time.Duration(doc.LeaseDuration) * time.Second
	switch {
	case m.kv == 1 && (doc.Data["ttl"] != nil || doc.Data["lease"] != nil):
		record.RefreshAfter = lease
	case m.kv == 0:
		record.RefreshAfter = lease * 2 / 3
	}
	clearAll(doc.Data)
	return record, nil
}

func unmarshal(raw json.RawMessage, into any) error {
	if raw == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}

// values decodes the fields that are strings.
func values(raw map[string]json.RawMessage) map[string]secret.Value {
	all := make(map[string]secret.Value, len(raw))
	for field, v := range raw {
		var s *string
		if json.Unmarshal(v, &s) == nil && s != nil {
			all[field] = secret.New([]byte(*s))
		} else {
			all[field] = secret.Value{}
		}
	}
	clearAll(raw)
	return all
}

func clearAll(raw map[string]json.RawMessage) {
	for _, v := range raw {
		clear(v)
	}
}
