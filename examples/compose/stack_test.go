//go:build compose

package compose

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// flavours are the Compose commands that the stack works with.
var flavours = []string{"docker-compose", "docker compose"}

// stack is a project of docker-compose.yml with the overlay local, under a name of its own.
type stack struct {
	e        *engine
	compose  string // one of flavours
	project  string
	port     string
	settings []string
	keys     []string // every key that it has ever been given
}

// newStack returns a stack that is not up. When the test ends it is taken down, and nothing of it may be left.
func newStack(t *testing.T, e *engine, compose string) *stack {
	t.Helper()
	port := freePort(t)
	s := &stack{e: e, compose: compose, port: port, project: "keyturn-test-" + strings.ToLower(rand.Text()[:8])}
	s.settings = append(theBases(t), "COMPOSE="+compose, "COMPOSE_PROJECT_NAME="+s.project, "KEYTURN_PORT="+port,
		"KEYTURN_VERSION="+testVersion, "KEYTURN_COMMIT="+testCommit, "DOCKER_BUILDKIT=0", "COMPOSE_BAKE=false")
	t.Cleanup(func() {
		if t.Failed() {
			out, err := s.composeCommand(context.WithoutCancel(t.Context()), "logs --no-color --tail=30")
			t.Logf("the logs of the stack (%v):\n%s", err, out)
		}
		if err := s.down(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return s
}

const composeFiles = "-f docker-compose.yml -f examples/compose/local.yml"

// script runs one of the scripts that users run, as they run it.
func (s *stack) script(ctx context.Context, key, name string, args ...string) (string, error) {
	return s.run(ctx, key, "examples/compose/"+name, args...)
}

func (s *stack) run(ctx context.Context, input, name string, args ...string) (string, error) {
	return s.e.runWith(ctx, s.settings, input, name, args...)
}

// must runs a script and ends the test if it fails.
func (s *stack) must(t *testing.T, input, name string, args ...string) string {
	t.Helper()
	out, err := s.script(t.Context(), input, name, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// composeCommand runs Compose itself.
func (s *stack) composeCommand(ctx context.Context, args string) (string, error) {
	return s.run(ctx, "", "sh", "-c", s.compose+" "+composeFiles+" "+args)
}

// newKey returns a key that was never there.
func (s *stack) newKey() string {
	key := "local-" + rand.Text()
	s.keys = append(s.keys, key)
	return key
}

// rotate writes a new key and returns once Vault has it.
func (s *stack) rotate(t *testing.T) {
	t.Helper()
	s.must(t, s.newKey(), "rotate.sh")
}

// down takes the stack down as users do.
func (s *stack) down(ctx context.Context) error {
	_, err := s.script(ctx, "", "down.sh")
	return err
}

// leftovers names the containers, networks and volumes of the project.
func (s *stack) leftovers(ctx context.Context) (string, error) {
	filter := "label=com.docker.compose.project=" + s.project
	var all []string
	var errs []error
	for _, args := range [][]string{{"ps", "-aq"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"}} {
		out, err := s.e.run(ctx, nil, "docker", append(args, "--filter", filter)...)
		all, errs = append(all, strings.Fields(out)...), append(errs, err)
	}
	return strings.Join(all, " "), errors.Join(errs...)
}

// container is what the engine says of one.
type container struct {
	ID           string `json:"Id"`
	RestartCount int
	State        struct {
		Status    string
		Pid       int
		StartedAt time.Time
		ExitCode  int
		Health    *struct{ Status string }
	}
	NetworkSettings struct {
		Networks map[string]struct{ IPAddress string }
	}
}

// find returns the container of a service, and whether there is one.
func (s *stack) find(ctx context.Context, service string) (c container, found bool, err error) {
	id, err := s.e.run(ctx, nil, "docker", "ps", "-aq", "--filter", "label=com.docker.compose.project="+s.project,
		"--filter", "label=com.docker.compose.service="+service)
	if err != nil || id == "" {
		return c, false, err
	}
	out, err := s.e.run(ctx, nil, "docker", "inspect", id)
	if err != nil {
		return c, false, err
	}
	var all []container
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 {
		return c, false, fmt.Errorf("docker inspect: %d containers of %s: %w", len(all), service, err)
	}
	return all[0], true, nil
}

// container returns the container of a service and ends the test if there is none.
func (s *stack) container(t *testing.T, service string) container {
	t.Helper()
	c, found, err := s.find(t.Context(), service)
	if err != nil || !found {
		t.Fatalf("there is no container of %s: %v", service, err)
	}
	return c
}

// running returns the containers that stay up, by service.
func (s *stack) running(t *testing.T) map[string]container {
	t.Helper()
	all := map[string]container{}
	for _, service := range []string{"vault", "agent", "app", "gemini"} {
		all[service] = s.container(t, service)
	}
	return all
}

// logs returns all that the container of a service has said.
func (s *stack) logs(ctx context.Context, service string) (string, error) {
	c, found, err := s.find(ctx, service)
	if err != nil || !found {
		return "", err
	}
	return s.e.run(ctx, nil, "sh", "-c", "docker logs "+c.ID+" 2>&1")
}

// eventually calls done until it returns true, and ends the test with what it last said if that takes too long.
func eventually(t *testing.T, within time.Duration, what string, done func() (bool, string)) {
	t.Helper()
	deadline := time.After(within)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, said := done()
		if ok {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s: not within %v: %s", what, within, said)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
