package vault

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// metadata is what KV version 2 says of a version.
type metadata struct {
	Version      int       `json:"version"`
	CreatedTime  time.Time `json:"created_time"`
	DeletionTime string    `json:"deletion_time"`
	Destroyed    bool      `json:"destroyed"`
}

// document is an answer of KV version 1 or of another engine; documentV2 is one of KV version 2. The values go from the
// body straight into bytes that can be cleared, and nothing else of the body is kept.
type document struct {
	LeaseID       string `json:"lease_id"`
	LeaseDuration int64  `json:"lease_duration"`
	Data          fields `json:"data"`
}

type documentV2 struct {
	Data *struct {
		Data     fields    `json:"data"`
		Metadata *metadata `json:"metadata"`
	} `json:"data"`
}

// read reads path, at a version of KV version 2 or at the newest if that is 0.
func (s *session) read(ctx context.Context, c *client, path string, version int) (*source.Record, error) {
	m, err := s.mountOf(ctx, c, path)
	if err != nil {
		return nil, err
	}
	q := request{method: http.MethodGet, path: path, token: s.token, again: m.kv != 0}
	if m.kv == 2 {
		q.path = m.path + "data/" + strings.TrimPrefix(path, m.path)
	}
	if version > 0 {
		if m.kv != 2 {
			return nil, fail(source.NotFound, path, "its engine keeps no earlier versions: use KV version 2")
		}
		q.params = url.Values{"version": {strconv.Itoa(version)}}
	}
	if m.kv == 0 {
		s.lends.Store(true) // beforehand: whoever replaces the session meanwhile must know
	}
	body, err := c.do(ctx, q)
	defer clear(body)
	if f, refused := undecided(err); refused {
		return nil, s.explain(f, m, path, q.path)
	}
	record, err := s.decode(m, path, body, err)
	return record, s.narrow(ctx, c, path, err)
}

// narrow finds out whether what looks like a failure of Vault is one of path alone. An engine whose database is down, or a
// secret that is too large, must not keep the other paths waiting.
func (s *session) narrow(ctx context.Context, c *client, path string, err error) error {
	f, ok := errors.AsType[*failure](err)
	if !ok || f.kind != source.Unavailable || !s.answers(ctx, c) {
		return err
	}
	fact, _, _ := strings.Cut(f.reason, ":")
	return f.as(source.Failed, path, "only this path fails, %s: Vault's own log says why", fact)
}

// decode makes a record of a body, unless it came with an error.
func (s *session) decode(m mount, path string, body []byte, err error) (*source.Record, error) {
	switch {
	case err != nil:
		return nil, err
	case m.kv == 2:
		return s.readV2(m, path, body)
	}
	return s.readOther(m, path, body)
}

// explain says what to do about a read that was refused, and doubts a mount that may have been made anew.
func (s *session) explain(f *failure, m mount, path, at string) error {
	switch {
	case f.status == http.StatusForbidden:
		return f.as(source.Denied, path, "permission denied: give the agent's policy \"read\" on %q", at)
	case f.deleted != nil && f.deleted.Destroyed:
		return f.as(source.NotFound, path, "version %d was destroyed: write a new one", f.deleted.Version)
	case f.deleted != nil:
		return f.as(source.NotFound, path, "version %d was deleted: undelete it, or write a new one", f.deleted.Version)
	case f.status == http.StatusNotFound:
		s.mounts.doubt(m)
		f.as(source.NotFound, path, "there is no secret: write it, or name another in AGENT_SECRETS")
		if rest, named := strings.CutPrefix(path, m.path+"data/"); named && m.kv == 2 {
			f.reason += "; perhaps " + m.path + rest + ", since data/ is added for KV version 2"
		} else if m.kv != 0 {
			f.reason += "; \"vault kv put " + path + " FIELD=-\" writes what it is given on standard input"
		}
		return f
	case strings.Contains(f.messages, "Upgrading from non-versioned to versioned"):
		return f.as(source.Failed, path, "its mount is being upgraded to KV version 2: it is read again")
	}
	return f.as(source.Invalid, path, "Vault can't read it (HTTP %d): name a secret in AGENT_SECRETS", f.status)
}

func (s *session) readV2(m mount, path string, body []byte) (*source.Record, error) {
	var doc documentV2
	if json.Unmarshal(body, &doc) != nil || doc.Data == nil {
		return nil, notVault()
	}
	if doc.Data.Metadata == nil {
		doc.Data.Data.clear()
		s.mounts.forget(m)
		return nil, fail(source.Invalid, path, "the answer is not one of KV version 2: was the mount made anew?")
	}
	if doc.Data.Data == nil {
		return nil, fail(source.NotFound, path, "version %d was deleted: undelete it, or write a new one", doc.Data.Metadata.Version)
	}
	record := source.NewRecord(path, doc.Data.Data.values())
	record.Version = secret.Version{Number: doc.Data.Metadata.Version, Created: doc.Data.Metadata.CreatedTime}
	return record, nil
}

// readOther reads KV version 1, whose ttl field may say to ask again sooner, and engines that lease what they give. A lease
// ends with the token that it was given to, so it is asked for again before either can end.
func (s *session) readOther(m mount, path string, body []byte) (*source.Record, error) {
	var doc document
	switch err := json.Unmarshal(body, &doc); {
	case err != nil || doc.Data == nil && m.kv == 1:
		return nil, notVault()
	case doc.Data == nil: // sys/ answers in shapes of its own
		return nil, fail(source.Invalid, path, "what is there has no fields: name a secret in AGENT_SECRETS")
	}
	record := source.NewRecord(path, doc.Data.values())
	lease := seconds(doc.LeaseDuration)
	_, ttl := doc.Data["ttl"]
	_, old := doc.Data["lease"]
	switch {
	// Without them, and if they hold no duration, Vault names the mount's default, which says nothing of this secret. They
	// may be somebody's own fields, so they keep nobody from asking.
	case m.kv == 1 && (ttl || old) && lease < s.poll:
		record.RefreshAfter = lease
	case m.kv == 0 && doc.LeaseID != "":
		if ends := s.life.Load().ends; !ends.IsZero() {
			lease = min(lease, max(time.Until(ends), time.Second))
		}
		record.RefreshAfter = lease / 3 * 2
	}
	return record, nil
}
