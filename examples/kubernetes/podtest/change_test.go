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

func agentIsKilled(t *testing.T, w *world) {
	w.needNode(t)
	s := w.stage(t, "kill")
	s.rotate(t)
	s.apply(t, overlay{of: "base", replicas: 1})
	s.awaitReady(t)
	asked := ask(t, s.service(s.name, "keyturn", "v1/generate"), rest)
	asked.more(t, 50)
	p := s.onePod(t)
	if err := syscall.Kill(s.process(t, p.container("keyturn-agent")), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, time.Minute, "another agent", func(ctx context.Context) error {
		now, err := s.pods(ctx)
		if err != nil {
			return err
		}
		if agent := now[0].container("keyturn-agent"); agent.RestartCount != 1 || !agent.Ready {
			return errors.New("there is none")
		}
		return nil
	})
	s.logged(t, p.Metadata.Name, "keyturn-agent", "took over the file that stood there")
	s.rotate(t)
	s.awaitGeneration(t, 2)
	asked.more(t, 50)
	asked.stop(t)
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
