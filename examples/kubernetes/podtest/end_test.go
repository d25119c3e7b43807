//go:build pod

package podtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// deletedPod keeps the pod's object by a finalizer, to see how its containers ended.
func deletedPod(t *testing.T, w *world) {
	s := w.stage(t, "delete")
	s.rotate(t)
	s.apply(t, overlay{of: "base", replicas: 1})
	s.awaitReady(t)
	p := s.onePod(t)
	hold := func(finalizers string) {
		s.run(t, "patch", "pod", p.Metadata.Name, "-n", s.name, "--type=merge", "-p", `{"metadata":{"finalizers":`+finalizers+`}}`)
	}
	hold(`["example.com/watched"]`)
	ends := map[string]func() time.Time{"app": s.follow(t, p, "app"), "keyturn-agent": s.follow(t, p, "keyturn-agent")}
	began := time.Now()
	s.run(t, "delete", "pod", p.Metadata.Name, "-n", s.name, "--wait=false")
	eventually(t, time.Minute, "the end of both containers", func(ctx context.Context) error {
		if err := s.get(ctx, &p, "pod", p.Metadata.Name, "-n", s.name); err != nil {
			return err
		}
		for _, name := range []string{"app", "keyturn-agent"} {
			if p.container(name).State.Terminated == nil {
				return fmt.Errorf("%s still runs", name)
			}
		}
		return nil
	})
	t.Logf("the pod ended within %v", time.Since(began).Round(time.Second))
	for _, name := range []string{"app", "keyturn-agent"} {
		if code := p.container(name).State.Terminated.ExitCode; code != 0 {
			t.Errorf("%s exited with %d", name, code)
		}
	}
	if app, agent := ends["app"](), ends["keyturn-agent"](); app.IsZero() || agent.Before(app) {
		t.Errorf("the agent stopped at %v, before the app did at %v", agent, app)
	}
	hold("null")
	if s.node == "" {
		t.Log("NOT TESTED: what a pod leaves on its node; the cluster isn't the test's own")
		return
	}
	eventually(t, time.Minute, "nothing is left", func(context.Context) error { return s.traces(p.Metadata.UID) })
}

// follow reads a container's log until its end; the kubelet may remove it right after that. What it returns waits for the end,
// and tells when the container logged that it stopped; zero: never.
func (s *stage) follow(t *testing.T, p pod, container string) func() time.Time {
	t.Helper()
	end := make(chan time.Time, 1)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	go func() {
		defer cancel()
		out, _ := s.try(ctx, "logs", "--follow", "-n", s.name, p.Metadata.Name, "-c", container)
		end <- first(parse(out), "stopped")
	}()
	return func() time.Time { return <-end }
}

// traces returns an error that says what a pod has left on the node.
func (c *cluster) traces(uid string) error {
	var left []string
	for _, pattern := range []string{c.node + "/root/var/lib/kubelet/pods/" + uid, "/sys/fs/cgroup/*/keyturn-devcluster/*/*/pod" + uid,
		"/sys/fs/cgroup/keyturn-devcluster/*/*/pod" + uid} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		left = append(left, found...)
	}
	mounts, err := os.ReadFile(c.node + "/mountinfo")
	if strings.Contains(string(mounts), uid) {
		left = append(left, "a mount")
	}
	if len(left) > 0 {
		err = errors.Join(err, fmt.Errorf("the pod left %s", strings.Join(left, ", ")))
	}
	return err
}
