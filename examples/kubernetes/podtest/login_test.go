//go:build pod

package podtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// login is one that succeeded, as Vault's audit log has it.
type login struct {
	accessor string
	token    string // the service account's, as a keyed hash
	account  string
}

// logins returns those with a role.
func (w *world) logins(role string) ([]login, error) {
	content, err := os.ReadFile(w.audit)
	if err != nil {
		return nil, err
	}
	var found []login
	for line := range strings.Lines(string(content)) {
		var entry struct {
			Type    string
			Auth    struct{ Metadata map[string]string }
			Request struct {
				Path string
				Data struct{ JWT string }
			}
			Response struct{ Auth struct{ Accessor string } }
		}
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Type != "response" || entry.Request.Path != "auth/kubernetes/login" ||
			entry.Auth.Metadata["role"] != role || entry.Response.Auth.Accessor == "" {
			continue
		}
		found = append(found, login{entry.Response.Auth.Accessor, entry.Request.Data.JWT,
			entry.Auth.Metadata["service_account_namespace"] + "/" + entry.Auth.Metadata["service_account_name"]})
	}
	return found, nil
}

// loginByTokenReview uses the role, the policy and the secret that the script and the base agree on.
func loginByTokenReview(t *testing.T, w *world) {
	s := w.stage(t, "login")
	s.setUp(t, s.name) // again: it has run for another namespace
	s.rotate(t)
	if _, err := s.vault.Client().KVv2("secret").Put(t.Context(), "gemini", map[string]any{"api_key": s.key}); err != nil {
		t.Fatal(err)
	}
	s.apply(t, overlay{of: "base", replicas: 1, agent: map[string]string{"AGENT_AUTH_ROLE": "keyturn", "AGENT_SECRETS": ""}})
	s.awaitReady(t)
	found, err := s.logins("keyturn")
	if err != nil || len(found) != 1 || found[0].account != s.name+"/keyturn" {
		t.Errorf("Vault's audit log has the logins %+v (%v), want one of %s/keyturn", found, err, s.name)
	}
	metrics := s.run(t, "get", "--raw=/metrics")
	if !regexp.MustCompile(`apiserver_request_total\{[^}]*resource="tokenreviews"[^}]*\} [1-9]`).MatchString(metrics) {
		t.Error("the API server was asked for no TokenReview")
	}
}

// tokenIsRenewed outlives the first token: a login after its end shows that the agent read another one.
func tokenIsRenewed(t *testing.T, w *world) {
	if testing.Short() && os.Getenv("CI") != "true" {
		t.Skip("NOT TESTED: a projected token lives for 600 s at least; leave out -short")
	}
	s := w.stage(t, "token")
	s.rotate(t)
	s.apply(t, overlay{of: "base", replicas: 1})
	s.awaitReady(t)
	p := s.onePod(t)
	asked := ask(t, s.service(s.name, "keyturn", "v1/generate"), time.Second)
	const life = 600 * time.Second
	end := p.container("keyturn-agent").State.Running.StartedAt.Add(life + 5*time.Second)
	select {
	case <-time.After(time.Until(end)):
	case <-t.Context().Done():
		return
	}
	before, err := s.logins(s.name)
	if err != nil || len(before) != 1 {
		t.Fatalf("the logins so far: %+v (%v), want one", before, err)
	}
	s.writeVault(t, "auth/token/revoke-accessor", map[string]any{"accessor": before[0].accessor})
	eventually(t, time.Minute, "another login", func(context.Context) error {
		now, err := s.logins(s.name)
		switch {
		case err == nil && len(now) < 2:
			err = errors.New("there is none")
		case err == nil && now[1].token == before[0].token:
			err = fmt.Errorf("it was with the token of %v ago", life)
		}
		return err
	})
	s.rotate(t)
	s.awaitGeneration(t, 2)
	asked.stop(t)
	if found := s.restarts(t); len(found) > 0 {
		t.Errorf("containers were restarted: %v", found)
	}
}
