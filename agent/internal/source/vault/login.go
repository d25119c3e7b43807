package vault

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// login builds a client anew, reads the credentials anew, and gains a token. The caller holds s.mu.
func (s *Source) login(ctx context.Context) (*session, error) {
	c, err := newClient()
	if err != nil {
		return nil, refused("VAULT_*: " + err.Error())
	}
	fresh, err := s.loginWith(ctx, c)
	if err != nil {
		c.close()
	}
	return fresh, err
}

func (s *Source) loginWith(ctx context.Context, c *client) (*session, error) {
	if s.config.Auth == Token {
		return s.useToken(ctx, c)
	}
	body, err := s.credentials(ctx, c)
	if err != nil {
		return nil, err
	}
	var answer struct{ Auth auth }
	what := "log in at auth/" + s.config.AuthMount
	err = c.call(ctx, what, http.MethodPut, "auth/"+s.config.AuthMount+"/login", nil, body, &answer)
	if err != nil {
		return nil, loginRefused(what, err)
	}
	if answer.Auth.ClientToken == "" {
		return nil, refused(what + ": Vault gave no token: is a second factor wanted?")
	}
	c.api.SetToken(answer.Auth.ClientToken)
	return newSession(c, answer.Auth, true), nil
}

// loginRefused turns what means "not these credentials" into Unauthenticated.
func loginRefused(what string, err error) error {
	e, ok := errors.AsType[*source.Error](err)
	if ok && !e.Kind.StoreWide() {
		return refused(what + ": Vault refuses the credentials: check the role, the mount, and that they haven't expired")
	}
	return err
}

// useToken takes the token that somebody else made. It is renewed, never revoked.
func (s *Source) useToken(ctx context.Context, c *client) (*session, error) {
	token := s.config.Token
	if token == "" {
		file := s.config.TokenFile
		if file == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return nil, refused("there is no token: set AGENT_TOKEN_FILE")
			}
			file = filepath.Join(home, ".vault-token")
		}
		var err error
		if token, err = credential("AGENT_TOKEN_FILE", file); err != nil {
			return nil, err
		}
	}
	c.api.SetToken(token)
	var answer struct {
		Data struct {
			TTL       int  `json:"ttl"`
			Renewable bool `json:"renewable"`
		}
	}
	err := c.call(ctx, "look up the token", http.MethodGet, "auth/token/lookup-self", nil, nil, &answer)
	if denied(err) {
		return nil, refused("Vault doesn't know the token: put a valid one into AGENT_TOKEN_FILE")
	}
	if err != nil {
		return nil, err
	}
	return newSession(c, auth{LeaseDuration: answer.Data.TTL, Renewable: answer.Data.Renewable}, false), nil
}

// credentials returns the body of the login.
func (s *Source) credentials(ctx context.Context, c *client) (map[string]string, error) {
	switch s.config.Auth {
	case AppRole:
		return s.appRole(ctx, c)
	case Kubernetes, JWT:
		jwt, err := credential("AGENT_JWT_FILE", s.config.JWTFile)
		if err != nil {
			return nil, err
		}
		return map[string]string{"role": s.config.AuthRole, "jwt": jwt}, nil
	case Cert:
		if s.config.AuthRole == "" {
			return map[string]string{}, nil
		}
		return map[string]string{"name": s.config.AuthRole}, nil
	}
	return nil, refused(fmt.Sprintf("there is no way to log in by %q", s.config.Auth))
}

func (s *Source) appRole(ctx context.Context, c *client) (map[string]string, error) {
	role, err := credential("AGENT_ROLE_ID_FILE", s.config.RoleIDFile)
	if err != nil {
		return nil, err
	}
	id, err := credential("AGENT_SECRET_ID_FILE", s.config.SecretIDFile)
	if err != nil {
		return nil, err
	}
	if id == s.secret.token && !s.secret.value.IsZero() {
		id = string(s.secret.value.Reveal())
	} else if strings.HasPrefix(id, "hvs.") || strings.HasPrefix(id, "s.") {
		if id, err = s.unwrap(ctx, c, id); err != nil {
			return nil, err
		}
	}
	return map[string]string{"role_id": role, "secret_id": id}, nil
}

// unwrap exchanges a wrapping token for the secret-id that it holds, which works once. It first makes sure that it is an
// AppRole's secret-id, and so not something that an attacker put there (developer.hashicorp.com/vault/docs/concepts/response-wrapping).
// A value that only looks like a wrapping token is returned as it is.
func (s *Source) unwrap(ctx context.Context, c *client, token string) (string, error) {
	var info struct {
		Data struct {
			CreationPath string `json:"creation_path"`
		}
	}
	err := c.call(ctx, "look up the wrapping token", http.MethodPut, "sys/wrapping/lookup", nil, map[string]string{"token": token}, &info)
	if e, ok := errors.AsType[*source.Error](err); ok && !e.Kind.StoreWide() {
		return "", refused("the wrapping token in AGENT_SECRET_ID_FILE has expired or was used before: write a new one, and find out who used it")
	}
	if err != nil {
		return "", err
	}
	path := strings.TrimPrefix(info.Data.CreationPath, "auth/"+s.config.AuthMount+"/role/")
	if path == info.Data.CreationPath || !strings.HasSuffix(path, "/secret-id") {
		return "", refused("the wrapping token in AGENT_SECRET_ID_FILE doesn't hold a secret-id of auth/" + s.config.AuthMount + ": somebody may have put it there")
	}
	var answer struct {
		Data struct {
			SecretID string `json:"secret_id"`
		}
	}
	if err := c.call(ctx, "unwrap the secret-id", http.MethodPut, "sys/wrapping/unwrap", nil, map[string]string{"token": token}, &answer); err != nil {
		return "", loginRefused("unwrap the secret-id", err)
	}
	s.secret.value.Clear()
	s.secret = unwrapped{token, secret.New([]byte(answer.Data.SecretID))}
	return answer.Data.SecretID, nil
}

// credential reads a file, without the space that editors leave at its end.
func credential(variable, file string) (string, error) {
	b, err := os.ReadFile(file)
	defer clear(b)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", refused(fmt.Sprintf("%s is missing: write it, or set %s to another", file, variable))
	case err != nil:
		return "", refused(fmt.Sprintf("%s can't be read: the agent's uid %d must be allowed to", file, os.Geteuid()))
	}
	b = bytes.TrimSpace(b)
	if len(b) == 0 {
		return "", refused(fmt.Sprintf("%s is empty: write the credential, or set %s to another", file, variable))
	}
	return string(b), nil
}

func refused(reason string) error {
	return &source.Error{Kind: source.Unauthenticated, Reason: reason}
}
