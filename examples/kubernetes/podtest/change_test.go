//go:build pod

package podtest

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"
)

func rotationReachesApp(t *testing.T, w *world) {
	s := w.stage(t, "rotate")
	s.rotate(t)
	s.apply(t, overlay{of: "base"})
	s.awaitReady(t)
	asked := ask(t, s.service(s.name, "keyturn", "v1/generate"), rest)
	for generation := 2; generation <= 4; generation++ {
		asked.more(t, 50)
		s.rotate(t)
		s.awaitGeneration(t, generation)
	}
	asked.more(t, 50)
	asked.stop(t)
	if found := s.restarts(t); len(found) > 0 {
		t.Errorf("containers were restarted: %v", found)
	}
	said := s.run(t, "get", "all,configmaps,events", "-n", s.name, "-o", "yaml") +
		s.run(t, "logs", "-n", s.name, "--all-containers", "-l", "app.kubernetes.io/name=keyturn", "--tail=-1")
	if strings.Contains(said, s.key) {
		t.Error("the key is in what the cluster tells")
	}
}

// agentIsKilled asks the app whose agent is killed, and its Service: a pod isn't ready while its agent starts again, so the
// Service turns to the other one.
func agentIsKilled(t *testing.T, w *world) {
	w.needNode(t)
	s := w.stage(t, "kill")
	s.rotate(t)
	s.apply(t, overlay{of: "base"})
	s.awaitReady(t)
	all, err := s.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	name := all[0].Metadata.Name
	service := ask(t, s.service(s.name, "keyturn", "v1/generate"), rest)
	direct := ask(t, s.pod(s.name, name, "8080", "v1/generate"), rest)
	direct.more(t, 50)
	began := time.Now()
	if err := syscall.Kill(s.process(t, all[0].container("keyturn-agent")), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "another agent", func(ctx context.Context) error {
		var now pod
		err := s.get(ctx, &now, "pod", name, "-n", s.name)
		if agent := now.container("keyturn-agent"); err == nil && (agent.RestartCount != 1 || !agent.Ready) {
			err = errors.New("there is none")
		}
		return err
	})
	t.Logf("another agent was ready after %v", time.Since(began).Round(100*time.Millisecond))
	s.logged(t, name, "keyturn-agent", "took over the file that stood there")
	s.rotate(t)
	s.awaitGeneration(t, 2)
	direct.more(t, 50)
	direct.stop(t)
	service.stop(t)
	if found := s.restarts(t); len(found) != 1 || found["keyturn-agent"] != 1 {
		t.Errorf("restarts: %v, want one of the agent", found)
	}
}

func rollingUpdate(t *testing.T, w *world) {
	s := w.stage(t, "roll")
	s.rotate(t)
	s.apply(t, overlay{of: "base"})
	s.awaitReady(t)
	asked := ask(t, s.service(s.name, "keyturn", "v1/generate"), rest)
	asked.more(t, 50)
	s.run(t, "patch", "deployment", "keyturn", "-n", s.name, "-p",
		`{"spec":{"template":{"metadata":{"annotations":{"example.com/turn":"2"}}}}}`)
	s.awaitReady(t)
	eventually(t, time.Minute, "the end of the old pods", func(ctx context.Context) error {
		var list struct{ Items []pod }
		err := s.get(ctx, &list, "pods", "-n", s.name)
		if err == nil && len(list.Items) != 2 {
			err = errors.New("they are still there")
		}
		return err
	})
	asked.more(t, 50)
	asked.stop(t)
}
