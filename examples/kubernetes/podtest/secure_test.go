//go:build pod

package podtest

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

func restrictedProfile(t *testing.T, w *world) {
	s := w.stage(t, "restricted")
	s.rotate(t)
	out, err := s.command(t.Context(), s.kubectl, "apply", "-k", s.kustomize(t, overlay{of: "base", replicas: 1})).CombinedOutput()
	if err != nil || strings.Contains(string(out), "Warning") {
		t.Fatalf("apply: %v: %s", err, out)
	}
	s.awaitReady(t)
	_, err = s.try(t.Context(), "run", "loose", "-n", s.name, "--image=keyturn-app:"+tag)
	if err == nil || !strings.Contains(err.Error(), `violates PodSecurity "restricted`) {
		t.Errorf("a pod that isn't restricted: %v", err)
	}
	if s.node == "" {
		t.Log("NOT TESTED: what the kernel says of the containers; the cluster isn't the test's own")
		return
	}
	p := s.onePod(t)
	for _, name := range []string{"app", "keyturn-agent"} {
		pid := s.process(t, p.container(name))
		for field, want := range map[string]string{
			"Uid": "65532", "Gid": "65532", "CapEff": "0000000000000000", "CapBnd": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
		} {
			if got := processField(pid, field)[0]; got != want {
				t.Errorf("%s: %s is %s, want %s", name, field, got, want)
			}
		}
		if root := mounts(t, pid)["/"]; !strings.HasPrefix(root.options, "ro") {
			t.Errorf("%s: its root is mounted %s", name, root.options)
		}
	}
}

// appHasNoToken looks for a way to Vault from within the app's container: ours, and one with a shell of sorts.
func appHasNoToken(t *testing.T, w *world) {
	s := w.stage(t, "token")
	s.rotate(t)
	s.deployPoet(t)
	found := s.run(t, "exec", "-n", s.name, "deploy/poet", "-c", "poet", "--", "python3", "-c", search)
	if found = strings.TrimSpace(found); found != "[]" {
		t.Errorf("the app's container can read %s", found)
	}
	// What Kubernetes mounts into a pod that doesn't turn it off is for another audience.
	token := s.run(t, "exec", "-n", s.name, "deploy/poet", "-c", "poet", "--", "python3", "-c",
		`print(open("/var/run/secrets/kubernetes.io/serviceaccount/token").read())`)
	_, err := s.vault.Client().Logical().WriteWithContext(context.WithoutCancel(t.Context()), "auth/kubernetes/login",
		map[string]any{"role": s.name, "jwt": strings.TrimSpace(token)})
	if err == nil || !strings.Contains(err.Error(), "audience") {
		t.Errorf("a login with the default token: %v", err)
	}
	if s.node == "" {
		t.Log("NOT TESTED: the container of the reference app; the cluster isn't the test's own")
		return
	}
	s.apply(t, overlay{of: "base", replicas: 1})
	s.awaitReady(t)
	var ours pod
	all, err := s.pods(t.Context())
	for _, p := range all {
		if strings.HasPrefix(p.Metadata.Name, "keyturn-") {
			ours = p
		}
	}
	pid := s.process(t, ours.container("app"))
	for place, m := range mounts(t, pid) {
		if strings.Contains(place, "secrets") || strings.HasPrefix(place, "/etc/keyturn") {
			t.Errorf("the app has a mount at %s", place)
		}
		if place == "/run/keyturn" && (m.filesystem != "tmpfs" || !strings.HasPrefix(m.options, "ro")) {
			t.Errorf("the key's volume is %+v in the app", m)
		}
	}
	if tokens, _ := filepath.Glob(fmt.Sprintf("/proc/%d/root/{run,var/run}/secrets/*/*", pid)); len(tokens) > 0 {
		t.Errorf("the app's container has %v (%v)", tokens, err)
	}
}

// search prints every file outside of the system's directories that holds a token of Vault's, or of a service account for
// Vault, and every process that isn't the searcher's own.
const search = `
import base64, json, os, re
found = []
def look(path):
    try:
        with open(path, "rb") as f:
            content = f.read(1 << 20)
    except OSError:
        return
    if b"hvs." in content:
        found.append(path)
    for payload in re.findall(rb"eyJ[\w-]+\.(eyJ[\w-]+)\.", content):
        claims = json.loads(base64.urlsafe_b64decode(payload + b"=" * (-len(payload) % 4)))
        if "vault" in claims.get("aud", []):
            found.append(path)
for top in ("/run", "/var", "/etc", "/tmp", "/srv", "/home", "/root", "/dev/shm"):
    for directory, _, files in os.walk(top):
        for name in files:
            look(os.path.join(directory, name))
for pid in filter(str.isdigit, os.listdir("/proc")):
    look(f"/proc/{pid}/environ")
    with open(f"/proc/{pid}/cmdline", "rb") as f:
        if not f.read().startswith(b"python3"):
            found.append(f"process {pid}")
print(found)
`
