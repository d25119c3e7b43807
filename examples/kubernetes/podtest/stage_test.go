//go:build pod

package podtest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stage is what a case has of its own: a namespace, a role and a policy in Vault, and a secret, all of one name.
type stage struct {
	*world
	name string
	key  string // the one that is good
}

// stage makes one. Its secret has no key yet.
func (w *world) stage(t *testing.T, name string) *stage {
	s := &stage{world: w, name: "keyturn-" + name + "-" + strings.ToLower(rand.Text()[:4])}
	policy := fmt.Sprintf(`path "secret/data/%s" { capabilities = ["read"] }`, s.name)
	if err := w.vault.Client().Sys().PutPolicyWithContext(t.Context(), s.name, policy); err != nil {
		t.Fatal(err)
	}
	s.allow(t, s.name, "vault")
	t.Cleanup(func() {
		if t.Failed() {
			s.tell(t)
		}
		if _, err := w.try(context.Background(), "delete", "namespace", s.name, "--wait=false", "--ignore-not-found"); err != nil {
			t.Error(err)
		}
	})
	return s
}

// allow lets the service accounts of the namespace log in with a role that wants an audience.
func (s *stage) allow(t *testing.T, role, audience string) {
	t.Helper()
	s.writeVault(t, "auth/kubernetes/role/"+role, map[string]any{
		"bound_service_account_names": "*", "bound_service_account_namespaces": s.name,
		"audience": audience, "token_policies": s.name, "token_ttl": "20m", "token_max_ttl": "4h",
	})
}

func (s *stage) writeVault(t *testing.T, path string, data map[string]any) {
	t.Helper()
	if _, err := s.vault.Client().Logical().WriteWithContext(t.Context(), path, data); err != nil {
		t.Fatal(err)
	}
}

// rotate writes a new key to Vault and revokes the old one in the same moment. It returns the new one's ordinal.
func (s *stage) rotate(t *testing.T) int {
	t.Helper()
	old := s.key
	s.key = "AQ.test-" + rand.Text()
	ordinal := s.gemini.Add(s.key)
	if _, err := s.vault.Client().KVv2("secret").Put(t.Context(), s.name, map[string]any{"api_key": s.key}); err != nil {
		t.Fatal(err)
	}
	if old != "" {
		s.gemini.Revoke(old)
	}
	return ordinal
}

// overlay is a kustomization over one of the repository's.
type overlay struct {
	of        string // base or example
	replicas  int    // of the Deployment keyturn; zero: as it is
	agent     map[string]string
	resources []any
	patches   []patch
}

type patch struct {
	kind, name string // of what is patched; empty: what the patch itself says
	patch      any
}

// apply deploys what o describes. What the test needs otherwise in the agent's variables is in agent.
func (s *stage) apply(t *testing.T, o overlay) {
	t.Helper()
	s.run(t, "apply", "-k", s.kustomize(t, o))
}

// kustomize writes the kustomization and returns its directory.
func (s *stage) kustomize(t *testing.T, o overlay) string {
	t.Helper()
	dir := t.TempDir()
	source, err := filepath.Abs(filepath.Join("..", o.of))
	if err != nil {
		t.Fatal(err)
	}
	if source, err = filepath.Rel(dir, source); err != nil {
		t.Fatal(err)
	}
	variables := map[string]string{
		"VAULT_ADDR": s.vault.Addr, "AGENT_AUTH_ROLE": s.name, "AGENT_SECRETS": "gemini-api-key=secret/" + s.name + "#api_key",
		"GOOGLE_GEMINI_BASE_URL": s.url, "AGENT_ALLOW_HTTP": "true",
	}
	var literals []string
	for name, value := range variables {
		if changed, ok := o.agent[name]; ok {
			value = changed
		}
		literals = append(literals, name+"="+value)
	}
	k := map[string]any{
		"namespace": s.name,
		"images": []any{
			map[string]any{"name": "keyturn-agent", "newTag": tag},
			map[string]any{"name": "registry.example.com/keyturn-agent", "newName": "keyturn-agent", "newTag": tag},
			map[string]any{"name": "keyturn-app", "newTag": tag},
		},
	}
	generator := map[string]any{"name": "keyturn-agent", "literals": literals}
	resources := []any{}
	if o.of == "component" { // it has no ConfigMap of its own
		k["components"] = []string{source}
	} else {
		resources = append(resources, source)
		generator["behavior"] = "merge"
	}
	k["configMapGenerator"] = []any{generator}
	for i, r := range o.resources {
		name := fmt.Sprintf("resource-%d.yaml", i)
		writeJSON(t, filepath.Join(dir, name), r)
		resources = append(resources, name)
	}
	k["resources"] = resources
	k["patches"] = s.patches(t, o)
	if o.replicas > 0 {
		k["replicas"] = []any{map[string]any{"name": "keyturn", "count": o.replicas}}
	}
	writeJSON(t, filepath.Join(dir, "kustomization.yaml"), k)
	return dir
}

func (s *stage) patches(t *testing.T, o overlay) []any {
	t.Helper()
	all := []any{}
	if o.of == "base" { // the app asks the stand-in, too
		o.patches = append(o.patches, patch{patch: container("app", map[string]any{"env": []any{
			variable("GOOGLE_GEMINI_BASE_URL", s.url), variable("APP_ALLOW_HTTP", "true")}})})
	}
	for _, p := range o.patches {
		content, err := json.Marshal(p.patch)
		if err != nil {
			t.Fatal(err)
		}
		entry := map[string]any{"patch": string(content)}
		if p.kind != "" {
			entry["target"] = map[string]any{"kind": p.kind, "name": p.name}
		}
		all = append(all, entry)
	}
	return all
}

func variable(name, value string) any { return map[string]any{"name": name, "value": value} }

// container is a patch of one container of the Deployment keyturn.
func container(name string, fields map[string]any) any {
	fields["name"] = name
	return deployment(map[string]any{"containers": []any{fields}})
}

// deployment is a patch of the pods of the Deployment keyturn.
func deployment(pod map[string]any) any {
	return map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": "keyturn"},
		"spec": map[string]any{"template": map[string]any{"spec": pod}}}
}

func writeJSON(t *testing.T, path string, v any) {
	t.Helper()
	content, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// awaitReady waits until the Deployment keyturn, or the workload that is named, has rolled out.
func (s *stage) awaitReady(t *testing.T, workload ...string) {
	t.Helper()
	if len(workload) == 0 {
		workload = []string{"deployment/keyturn"}
	}
	for _, name := range workload {
		s.run(t, "-n", s.name, "rollout", "status", name, "--timeout=3m")
	}
}

// tell prints what a person would look at first.
func (s *stage) tell(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	for _, args := range [][]string{
		{"get", "pods", "-o", "wide"},
		{"get", "events", "--sort-by=.lastTimestamp"},
		{"logs", "--all-containers", "--prefix", "--ignore-errors", "--tail=20", "-l", "app.kubernetes.io/name"},
	} {
		out, err := s.try(ctx, append([]string{"-n", s.name}, args...)...)
		t.Logf("%s (%v)\n%s", strings.Join(args, " "), err, out)
	}
}
