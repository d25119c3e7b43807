package vault

import (
	"context"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// unwrapped is a secret-id that came response-wrapped. A wrapping token works once, so what it held is kept, in memory
// only, for as long as the file holds that token.
type unwrapped struct{ token, secretID secret.Value }

func (u *unwrapped) clear() {
	u.token.Clear()
	u.secretID.Clear()
}

func (s *Source) appRole(ctx context.Context, c *client) (map[string]string, error) {
	role, err := credential("AGENT_ROLE_ID_FILE", s.config.RoleIDFile)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(s.config.SecretIDFile); errors.Is(err, fs.ErrNotExist) {
		return map[string]string{"role_id": role}, nil // the role may do without, and if not Vault says so
	}
	id, err := credential("AGENT_SECRET_ID_FILE", s.config.SecretIDFile)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(id, "hvs.") || strings.HasPrefix(id, "s.") {
		if id, err = s.unwrap(ctx, c, id); err != nil {
			return nil, err
		}
	}
	return map[string]string{"role_id": role, "secret_id": id}, nil
}

// unwrap exchanges a wrapping token for the secret-id that it holds, once. It first makes sure that it wraps a secret-id of
// our mount, and not something that an attacker made to take the place of one that he has unwrapped himself.
func (s *Source) unwrap(ctx context.Context, c *client, token string) (string, error) {
	if !s.secretID.token.IsZero() && string(s.secretID.token.Reveal()) == token {
		return string(s.secretID.secretID.Reveal()), nil
	}
	var info struct {
		Data *struct {
			CreationPath string `json:"creation_path"`
		}
	}
	err := c.ask(ctx, request{method: http.MethodPut, path: "sys/wrapping/lookup", body: map[string]string{"token": token}}, &info)
	if err != nil {
		return "", spent(err)
	}
	if info.Data == nil {
		return "", notVault()
	}
	if !wrapsSecretID(info.Data.CreationPath, s.config.AuthMount, c.api.Namespace()) {
		return "", unauthenticated("the wrapping token in AGENT_SECRET_ID_FILE holds no secret-id of auth/%s: write a new one, and find out who put it there", s.config.AuthMount)
	}
	var answer struct {
		Data struct {
			SecretID string `json:"secret_id"`
		}
	}
	// The wrapping token is the token of this request: one that came in the body would want another token beside it.
	err = c.ask(ctx, request{method: http.MethodPut, path: "sys/wrapping/unwrap", token: token, body: map[string]string{}}, &answer)
	if err != nil {
		return "", spent(err)
	}
	if answer.Data.SecretID == "" {
		return "", notVault()
	}
	s.secretID.clear()
	s.secretID = unwrapped{secret.New([]byte(token)), secret.New([]byte(answer.Data.SecretID))}
	return answer.Data.SecretID, nil
}

// wrapsSecretID reports whether path is where AppRole at mount makes secret-ids: auth/MOUNT/role/ROLE/secret-id.
func wrapsSecretID(path, mount, namespace string) bool {
	if ns := strings.Trim(namespace, "/"); ns != "" {
		path = strings.TrimPrefix(path, ns+"/")
	}
	rest, ours := strings.CutPrefix(path, "auth/"+mount+"/role/")
	role, kind, _ := strings.Cut(rest, "/")
	return ours && role != "" && (kind == "secret-id" || kind == "custom-secret-id")
}

func spent(err error) error {
	if f, refused := undecided(err); refused {
		return f.as(source.Unauthenticated, "", "the wrapping token in AGENT_SECRET_ID_FILE has expired or was used before, and may have been intercepted: write a new one, and find out who used it")
	}
	return err
}

// invalidSecretID is why Vault refuses a pair of role-id and secret-id.
const invalidSecretID = "the role-id or secret-id is not valid, or not any more: write new ones"

// refusal is the pair of role-id and secret-id that Vault refused last.
//
// Vault locks a role-id out for 15 minutes, and with it every agent that uses it, once secret-ids were refused five times
// with less than 15 minutes between two of them (its "user lockout"). So a pair that was refused isn't shown again for a
// while, at most three times in all before the wait is longer than that. Another pair in the files is tried at once.
type refusal struct {
	roleID, secretID secret.Value
	at               time.Time
	wait             time.Duration
}

const firstRefusal, maxRefusal = time.Minute, 16 * time.Minute

// stands reports whether the login with that body was refused and is not worth another try yet.
func (r *refusal) stands(body map[string]string) bool {
	return r.isOf(body) && time.Since(r.at) < r.wait
}

func (r *refusal) isOf(body map[string]string) bool {
	return !r.roleID.IsZero() && string(r.roleID.Reveal()) == body["role_id"] && string(r.secretID.Reveal()) == body["secret_id"]
}

func (r *refusal) note(body map[string]string) {
	if r.isOf(body) {
		r.wait = min(4*r.wait, maxRefusal)
	} else {
		r.clear()
		r.roleID, r.secretID, r.wait = secret.New([]byte(body["role_id"])), secret.New([]byte(body["secret_id"])), firstRefusal
	}
	r.at = time.Now()
}

func (r *refusal) clear() {
	r.roleID.Clear()
	r.secretID.Clear()
}
