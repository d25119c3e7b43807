package vault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"syscall"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// login builds a client anew, reads the credentials anew, and gains a token. The caller is in the turnstile.
func (s *Source) login(ctx context.Context) (*session, error) {
	c, err := newClient()
	if err != nil {
		return nil, unavailable("no connection to Vault can be made: %v", err)
	}
	fresh, err := s.loginBy(ctx, c)
	if err != nil {
		c.close()
		return nil, err
	}
	fresh.poll = s.config.Poll
	return fresh, nil
}

func (s *Source) loginBy(ctx context.Context, c *client) (*session, error) {
	if s.config.Auth == Token {
		return s.useToken(ctx, c)
	}
	body, err := s.credentials(ctx, c)
	if err != nil {
		return nil, err
	}
	at := "auth/" + s.config.AuthMount
	if s.refusal.stands(body) {
		return nil, unauthenticated("log in at %s: %s", at, invalidSecretID)
	}
	var answer struct{ Auth *auth }
	err = c.ask(ctx, request{method: http.MethodPut, path: at + "/login", body: body}, &answer)
	if f, refused := undecided(err); refused {
		why := s.whyRefused(f)
		if why == invalidSecretID {
			s.refusal.note(body)
		}
		return nil, f.as(source.Unauthenticated, "", "log in at %s: %s", at, why)
	}
	if err != nil {
		return nil, err
	}
	if answer.Auth == nil {
		return nil, notVault()
	}
	s.refusal.clear()
	if answer.Auth.ClientToken == "" {
		return nil, unauthenticated("log in at %s: Vault gave no token: is a second factor wanted?", at)
	}
	answer.Auth.Endless = answer.Auth.LeaseDuration == 0
	return newSession(c, *answer.Auth, true), nil
}

// whyRefused says in words of our own what Vault's refusal says, as far as it is one of the common ones.
func (s *Source) whyRefused(f *failure) string {
	for _, known := range []struct{ phrase, reason string }{
		{"invalid role or secret ID", invalidSecretID},
		{"invalid secret id", invalidSecretID},
		{"missing secret_id", s.config.SecretIDFile + " is missing: write it, or set AGENT_SECRET_ID_FILE to another"},
		{"invalid role ID", "the role-id is not valid: write another into AGENT_ROLE_ID_FILE"},
		{"token is expired", "the token in AGENT_JWT_FILE has expired: see that it is renewed"},
		{"audience", "the token in AGENT_JWT_FILE is for another audience: mend the token's, or the role's"},
		{"could not be found", "there is no such role: mend AGENT_AUTH_ROLE"},
		{"invalid role name", "there is no such role: mend AGENT_AUTH_ROLE"},
		{"missing role", "the role is missing: set AGENT_AUTH_ROLE"},
		{"not authorized", "the role is not for this service account: mend the role, or AGENT_AUTH_ROLE"},
		{"client certificate", "Vault knows no such client certificate: check VAULT_CLIENT_CERT and the role"},
	} {
		if strings.Contains(f.messages, known.phrase) {
			return known.reason
		}
	}
	if f.status == http.StatusForbidden && s.config.Auth == AppRole {
		return "permission denied: check AGENT_AUTH_MOUNT; or wait, if Vault has locked the role-id out after several wrong secret-ids"
	}
	if f.status == http.StatusForbidden || f.status == http.StatusNotFound {
		return "permission denied: check AGENT_AUTH_MOUNT, AGENT_AUTH_ROLE and the credentials"
	}
	return "Vault refuses the credentials: check them, AGENT_AUTH_ROLE, and that they haven't expired"
}

// useToken takes the token that somebody else made. It is renewed, never revoked. One that may not look itself up, since it
// hasn't Vault's default policy, may still read: when it ends isn't known then, and it isn't renewed.
func (s *Source) useToken(ctx context.Context, c *client) (*session, error) {
	token := s.config.Token
	if token == "" {
		var err error
		if token, err = credential("AGENT_TOKEN_FILE", s.config.TokenFile); err != nil {
			return nil, err
		}
	}
	var answer struct {
		Data *struct {
			TTL        int64   `json:"ttl"`
			ExpireTime *string `json:"expire_time"`
			Renewable  bool    `json:"renewable"`
		}
	}
	err := c.ask(ctx, request{method: http.MethodGet, path: "auth/token/lookup-self", token: token, again: true}, &answer)
	if f, refused := undecided(err); refused {
		if f.status == http.StatusForbidden && !saysDead(err) {
			opaque := newSession(c, auth{ClientToken: token, Endless: true}, false)
			opaque.opaque = true
			return opaque, nil
		}
		return nil, f.as(source.Unauthenticated, "", "Vault doesn't know the token, or not any more: put another into AGENT_TOKEN_FILE")
	}
	if err == nil && answer.Data == nil {
		err = notVault()
	}
	if err != nil {
		return nil, err
	}
	endless := answer.Data.ExpireTime == nil && answer.Data.TTL == 0
	return newSession(c, auth{token, answer.Data.TTL, answer.Data.Renewable, endless}, false), nil
}

// credentials returns the body of the login.
func (s *Source) credentials(ctx context.Context, c *client) (map[string]string, error) {
	switch s.config.Auth {
	case AppRole:
		return s.appRole(ctx, c)
	case Cert:
		if s.config.AuthRole == "" {
			return map[string]string{}, nil
		}
		return map[string]string{"name": s.config.AuthRole}, nil
	default: // Kubernetes and JWT: New lets no other through
		jwt, err := credential("AGENT_JWT_FILE", s.config.JWTFile)
		if err != nil {
			return nil, err
		}
		return map[string]string{"role": s.config.AuthRole, "jwt": jwt}, nil
	}
}

// maxCredential bounds a credential file; a service account's token has 1 to 2 KiB.
const maxCredential = 64 << 10

// credential reads a file, without the space that editors leave at its end.
func credential(variable, file string) (string, error) {
	b, err := readCredential(file)
	defer clear(b)
	text := bytes.TrimSpace(b)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", unauthenticated("%s is missing: write it, or set %s to another", file, variable)
	case errors.Is(err, fs.ErrPermission) && syscall.Access(file, readable) == nil: // which Landlock doesn't answer
		return "", unauthenticated("%s can't be read, though uid %d may: a confined agent reads only in the directories that it found when it started: restart it", file, os.Geteuid())
	case err != nil:
		return "", unauthenticated("%s can't be read: make it a file that uid %d may read", file, os.Geteuid())
	case len(text) == 0:
		return "", unauthenticated("%s is empty: write the credential, or set %s to another", file, variable)
	case len(b) > maxCredential || bytes.ContainsFunc(text, func(c rune) bool { return c < ' ' || c == 0x7f }):
		return "", unauthenticated("%s holds more than one line, or no credential: write it alone, or set %s to another", file, variable)
	}
	return string(text), nil
}

// readable is R_OK of access(2).
const readable = 4

// readCredential reads at most one byte more than maxCredential. The caller clears what it returns.
func readCredential(file string) ([]byte, error) {
	// A pipe would block for ever and give its content only once.
	f, err := os.OpenFile(file, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, fs.ErrInvalid
	}
	b := make([]byte, maxCredential+1) // one that grows would leave copies behind
	n, err := io.ReadFull(f, b)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil
	}
	return b[:n], err
}
