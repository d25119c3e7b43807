//go:build pod

package podtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// deployPoet deploys ../example as it is, but for where Gemini is.
func (s *stage) deployPoet(t *testing.T) {
	t.Helper()
	s.run(t, "create", "namespace", s.name)
	env := []any{variable("GOOGLE_GEMINI_BASE_URL", s.url)}
	s.apply(t, overlay{of: "example", patches: []patch{{kind: "Deployment", name: "poet", patch: []any{
		map[string]any{"op": "add", "path": "/spec/template/spec/containers/0/env", "value": env},
		map[string]any{"op": "add", "path": "/spec/template/spec/initContainers/1/env", "value": env},
	}}}})
	s.awaitReady(t, "deployment/poet")
}

func foreignApp(t *testing.T, w *world) {
	s := w.stage(t, "foreign")
	s.rotate(t)
	s.deployPoet(t)
	p := s.onePod(t)
	poem := func(ctx context.Context) error {
		text, err := fetch(ctx, s.pod(s.name, p.Metadata.Name, "8000", "/"))
		if err == nil && !strings.Contains(text, "poem") {
			err = fmt.Errorf("the poem is %q", text)
		}
		return err
	}
	if err := poem(t.Context()); err != nil {
		t.Error(err)
	}
	seen := s.run(t, "exec", "-n", s.name, "deploy/poet", "-c", "poet", "--", "python3", "-c", inside)
	if want := "10001 0o600 0o40700 tmpfs EROFS True\n"; seen != want {
		t.Errorf("the app sees %q, want %q", seen, want)
	}
	ordinal := s.rotate(t)
	eventually(t, time.Minute, "a poem with the new key", func(ctx context.Context) error {
		if err := poem(ctx); err != nil {
			return err
		}
		if s.gemini.Served(ordinal) == 0 {
			return errors.New("the new key has served nobody")
		}
		return nil
	})
	if found := s.restarts(t); len(found) > 0 {
		t.Errorf("containers were restarted: %v", found)
	}
}

// inside prints owner and mode of the key, the mode of its directory, its filesystem, what writing there ends with, and
// whether the agent's socket answers.
const inside = `
import errno, os, socket
key, written = "/run/keyturn/keys/gemini-api-key", "written"
mounts = dict(line.split()[1:3] for line in open("/proc/self/mounts"))
try:
    open("/run/keyturn/keys/mine", "w")
except OSError as error:
    written = errno.errorcode[error.errno]
agent = socket.socket(socket.AF_UNIX)
agent.connect("/run/keyturn/keys/agent.sock")
agent.sendall(b"GET /status HTTP/1.0\r\n\r\n")
print(os.stat(key).st_uid, oct(os.stat(key).st_mode & 0o7777), oct(os.stat(os.path.dirname(key)).st_mode), mounts["/run/keyturn"],
      written, b"200 OK" in agent.recv(4096))
`

// everyKind applies the component to one workload of each kind. The Deployment has an fsGroup, which opens the volume to a
// group; the StatefulSet an init container of its own that needs the key.
func everyKind(t *testing.T, w *world) {
	s := w.stage(t, "kinds")
	s.rotate(t)
	program, err := os.ReadFile("../example/poet.py")
	if err != nil {
		t.Fatal(err)
	}
	s.run(t, "create", "namespace", s.name)
	grouped, checked := s.poetPod("grouped", "serve"), s.poetPod("checked", "serve")
	grouped["securityContext"] = map[string]any{"runAsUser": 10001, "fsGroup": 2000}
	checked["initContainers"] = s.poetPod("check", "once")["containers"]
	once := s.poetPod("once", "once")
	once["restartPolicy"] = "Never"
	bystander := workload("apps/v1", "Deployment", "bystander", s.poetPod("bystander", "serve"))
	bystander["metadata"].(map[string]any)["annotations"] = map[string]any{"keyturn/agent": "none"}
	plain := bystander["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)
	plain["volumes"] = append(plain["volumes"].([]any), map[string]any{"name": "keyturn", "emptyDir": map[string]any{}})
	s.apply(t, overlay{of: "component", resources: []any{
		map[string]any{"apiVersion": "v1", "kind": "ConfigMap", "metadata": map[string]any{"name": "poet"},
			"data": map[string]any{"poet.py": string(program)}},
		workload("apps/v1", "Deployment", "grouped", grouped),
		workload("apps/v1", "StatefulSet", "checked", checked),
		workload("apps/v1", "DaemonSet", "daemon", s.poetPod("daemon", "serve")),
		workload("batch/v1", "Job", "once", once),
		bystander,
	}})
	s.awaitReady(t, "deployment/grouped", "statefulset/checked", "daemonset/daemon", "deployment/bystander")
	s.run(t, "wait", "-n", s.name, "--for=condition=Complete", "job/once", "--timeout=2m")
	all, err := s.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range all {
		name, _, _ := strings.Cut(p.Metadata.Name, "-")
		agent := p.container("keyturn-agent")
		switch name {
		case "bystander":
			if agent.Name != "" {
				t.Error("the agent is in a pod that keeps it out")
			}
		case "once":
			if end := agent.State.Terminated; p.Status.Phase != "Succeeded" || end == nil || end.ExitCode != 0 {
				t.Errorf("the Job's pod is %s, its agent %+v", p.Status.Phase, end)
			}
		default:
			if _, err := fetch(t.Context(), s.pod(s.name, p.Metadata.Name, "8000", "/")); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// poetPod is a pod that mounts the key's volume, without a word on where that comes from.
func (s *stage) poetPod(name, command string) map[string]any {
	return map[string]any{
		"securityContext": map[string]any{"runAsUser": 10001},
		"containers": []any{map[string]any{
			"name": name, "image": "python:3.13-slim", "command": []string{"python3", "-B", "/srv/poet.py", command},
			"env": []any{variable("GOOGLE_GEMINI_BASE_URL", s.url)},
			"volumeMounts": []any{map[string]any{"name": "program", "mountPath": "/srv"},
				map[string]any{"name": "keyturn", "mountPath": "/run/keyturn", "readOnly": true}},
		}},
		"volumes": []any{map[string]any{"name": "program", "configMap": map[string]any{"name": "poet"}}},
	}
}

func workload(apiVersion, kind, name string, pod map[string]any) map[string]any {
	labels := map[string]any{"app.kubernetes.io/name": name}
	spec := map[string]any{"template": map[string]any{"metadata": map[string]any{"labels": labels}, "spec": pod}}
	if kind != "Job" {
		spec["selector"] = map[string]any{"matchLabels": labels}
	}
	if kind == "StatefulSet" {
		spec["serviceName"] = name
	}
	return map[string]any{"apiVersion": apiVersion, "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec}
}
