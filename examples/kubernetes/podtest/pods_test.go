//go:build pod

package podtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
)

// pod is the part of a Pod that the test looks at.
type pod struct {
	Metadata struct {
		Name, UID         string
		DeletionTimestamp *time.Time
	}
	Spec struct {
		Containers []struct {
			VolumeMounts []struct{ MountPath string }
		}
	}
	Status struct {
		Phase                 string
		PodIP                 string
		Conditions            []struct{ Type, Status string }
		InitContainerStatuses []containerStatus
		ContainerStatuses     []containerStatus
	}
}

type containerStatus struct {
	Name, ContainerID string
	Ready             bool
	RestartCount      int
	State             struct {
		Waiting    *struct{ Reason string }
		Running    *struct{ StartedAt time.Time }
		Terminated *struct {
			ExitCode   int
			FinishedAt time.Time
		}
	}
}

// pods returns the namespace's pods that are not being deleted.
func (s *stage) pods(ctx context.Context) ([]pod, error) {
	var list struct{ Items []pod }
	if err := s.get(ctx, &list, "pods", "-n", s.name); err != nil {
		return nil, err
	}
	var alive []pod
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == nil {
			alive = append(alive, p)
		}
	}
	return alive, nil
}

// onePod returns the only pod.
func (s *stage) onePod(t *testing.T) pod {
	t.Helper()
	all, err := s.pods(t.Context())
	if err != nil || len(all) != 1 {
		t.Fatalf("%d pods, want 1 (%v)", len(all), err)
	}
	return all[0]
}

// container returns the status of one of p's containers.
func (p pod) container(name string) containerStatus {
	for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
		if c.Name == name {
			return c
		}
	}
	return containerStatus{}
}

// restarts returns how often each container was restarted, for those that were.
func (s *stage) restarts(t *testing.T) map[string]int {
	t.Helper()
	all, err := s.pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, p := range all {
		for _, c := range append(p.Status.InitContainerStatuses, p.Status.ContainerStatuses...) {
			if c.RestartCount > 0 {
				found[c.Name] += c.RestartCount
			}
		}
	}
	return found
}

// logLine is one line of the agent's or the app's log.
type logLine struct {
	Time        time.Time
	Msg, Reason string
}

func (s *stage) logs(ctx context.Context, pod, container string) ([]logLine, error) {
	out, err := s.try(ctx, "logs", "-n", s.name, pod, "-c", container)
	return parse(out), err
}

func parse(log string) []logLine {
	var lines []logLine
	for text := range strings.Lines(log) {
		var line logLine
		if json.Unmarshal([]byte(text), &line) == nil {
			lines = append(lines, line)
		}
	}
	return lines
}

// logged returns when a container first logged a message.
func (s *stage) logged(t *testing.T, pod, container, message string) time.Time {
	t.Helper()
	lines, err := s.logs(t.Context(), pod, container)
	at := first(lines, message)
	if at.IsZero() {
		t.Fatalf("%s of %s never logged %q (%v)", container, pod, message, err)
	}
	return at
}

// first returns when a message was first logged; zero: never.
func first(lines []logLine, message string) time.Time {
	for _, line := range lines {
		if line.Msg == message {
			return line.Time
		}
	}
	return time.Time{}
}

// status is what the app says of itself at /status, as far as the test looks at it.
type status struct {
	Generation   int
	Acknowledged int
}

func (s *stage) appStatus(ctx context.Context, pod string) (status, error) {
	var now status
	body, err := fetch(ctx, s.pod(s.name, pod, "8080", "status"))
	if err != nil {
		return now, err
	}
	return now, json.Unmarshal([]byte(body), &now)
}

// awaitGeneration waits until every app uses the generation.
func (s *stage) awaitGeneration(t *testing.T, want int) {
	t.Helper()
	eventually(t, time.Minute, fmt.Sprintf("generation %d in every app", want), func(ctx context.Context) error {
		all, err := s.pods(ctx)
		if err != nil || len(all) == 0 {
			return errors.Join(err, errors.New("no pods"))
		}
		for _, p := range all {
			now, err := s.appStatus(ctx, p.Metadata.Name)
			if err != nil {
				return err
			}
			if now.Generation != want {
				return fmt.Errorf("%s uses generation %d", p.Metadata.Name, now.Generation)
			}
		}
		return nil
	})
}

// awaitReason waits until the pod's events say why it doesn't start, and checks that the agent's log has the same sentence and
// that the app waits. It returns the pod.
func (s *stage) awaitReason(t *testing.T, reason string) pod {
	t.Helper()
	eventually(t, time.Minute, "the reason in the pod's events", func(ctx context.Context) error {
		out, err := s.try(ctx, "get", "events", "-n", s.name, "--field-selector=reason=Unhealthy", "-o", "jsonpath={.items[*].message}")
		if err == nil && !strings.Contains(out, reason) {
			err = fmt.Errorf("the events say: %s", out)
		}
		return err
	})
	p := s.onePod(t)
	lines, err := s.logs(t.Context(), p.Metadata.Name, "keyturn-agent")
	said := 0
	for _, line := range lines {
		if strings.Contains(line.Reason, reason) {
			said++
		}
	}
	if said == 0 || said > 2 {
		t.Errorf("the agent's log says %q %d times (%v)", reason, said, err)
	}
	if p.container("app").State.Waiting == nil || p.container("keyturn-agent").RestartCount > 0 {
		t.Errorf("the app runs, or the agent was restarted: %+v", p.Status)
	}
	return p
}
