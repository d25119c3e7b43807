package stage

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

// The secret, and the one path of the policy that a pod's role has.
const (
	mount, path, field = "secret", "gemini", "api_key"
	role               = "keyturn"
	policy             = `path "secret/data/gemini" { capabilities = ["read"] }`
)

// Vault is a real Vault, over TLS, with one secret in KV version 2 and one AppRole that may read it.
type Vault struct {
	server *vaulttest.Server
	audit  string // a file with a line for each request and each answer
	roleID string
}

func openVault(ctx context.Context, binary, dir string) (_ *Vault, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	v := &Vault{audit: filepath.Join(dir, "audit.log")}
	if v.server, err = vaulttest.Start(ctx, vaulttest.Options{Binary: binary, TLS: true, Dir: dir}); err != nil {
		return nil, err
	}
	if err := v.seed(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("seed Vault: %w", err), v.server.Stop())
	}
	return v, nil
}

func (v *Vault) seed(ctx context.Context) error {
	sys := v.server.Client().Sys()
	if err := sys.EnableAuditWithOptionsWithContext(ctx, "drill", &api.EnableAuditOptions{Type: "file",
		Options: map[string]string{"file_path": v.audit, "mode": "0600"}}); err != nil {
		return err
	}
	if err := sys.PutPolicyWithContext(ctx, role, policy); err != nil {
		return err
	}
	if err := sys.EnableAuthWithOptionsWithContext(ctx, "approle", &api.EnableAuthOptions{Type: "approle"}); err != nil {
		return err
	}
	_, err := v.server.Client().Logical().WriteWithContext(ctx, "auth/approle/role/"+role, map[string]any{
		"token_policies": role, "token_ttl": "20m", "token_max_ttl": "4h",
		"secret_id_bound_cidrs": "127.0.0.1/32", "secret_id_ttl": "24h",
	})
	if err != nil {
		return err
	}
	v.roleID, err = v.answer(v.server.Client().Logical().ReadWithContext(ctx, "auth/approle/role/"+role+"/role-id"))("role_id")
	return err
}

// secretID returns a new secret-id of the role.
func (v *Vault) secretID(ctx context.Context) (string, error) {
	return v.answer(v.server.Client().Logical().WriteWithContext(ctx, "auth/approle/role/"+role+"/secret-id", nil))("secret_id")
}

func (v *Vault) answer(secret *api.Secret, err error) func(name string) (string, error) {
	return func(name string) (string, error) {
		if err != nil {
			return "", err
		}
		if secret != nil {
			if s, ok := secret.Data[name].(string); ok {
				return s, nil
			}
		}
		return "", fmt.Errorf("there is no %s in the answer of Vault", name)
	}
}

// Version returns the version that Vault gives, such as 1.21.1.
func (v *Vault) Version(ctx context.Context) (string, error) {
	health, err := v.server.Client().Sys().HealthWithContext(ctx)
	if err != nil {
		return "", err
	}
	return health.Version, nil
}

// Secret names the secret as AGENT_SECRETS does.
func (v *Vault) Secret() string { return mount + "/" + path + "#" + field }

// Write writes key as the newest version of the secret. It returns when Vault's answer has arrived.
func (v *Vault) Write(ctx context.Context, key string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err := v.server.Client().KVv2(mount).Put(ctx, path, map[string]any{field: key})
	return err
}

// Pause makes Vault hang: connections are taken, and nothing is answered. Resume ends that.
func (v *Vault) Pause() error { return v.server.Pause() }

// Resume undoes Pause.
func (v *Vault) Resume() error { return v.server.Resume() }

// Seal makes Vault answer 503; Unseal ends that.
func (v *Vault) Seal(ctx context.Context) error { return v.server.Seal(ctx) }

// Unseal undoes Seal, and returns once Vault serves again.
func (v *Vault) Unseal(ctx context.Context) error { return v.server.Unseal(ctx) }

// Reads returns how often the secret has been read so far, as Vault's audit log has it. Nobody but agents reads it.
func (v *Vault) Reads() (int, error) {
	file, err := os.Open(v.audit)
	if err != nil {
		return 0, err
	}
	defer file.Close()
	reads := 0
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var entry struct {
			Type    string
			Request struct{ Operation, Path string }
		}
		if err := json.Unmarshal(lines.Bytes(), &entry); err != nil {
			return 0, fmt.Errorf("read the audit log of Vault: %w", err)
		}
		if entry.Type == "request" && entry.Request.Operation == "read" && entry.Request.Path == mount+"/data/"+path {
			reads++
		}
	}
	return reads, lines.Err()
}
