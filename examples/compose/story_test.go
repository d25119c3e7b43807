//go:build compose

package compose

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// What README promises of the stack's speed. Each is tried a few times: a machine may be busy once.
const (
	attempts    = 3
	firstAnswer = 15 * time.Second // from up, with images built, to the first answer
	newKeyInUse = 2 * time.Second  // from rotate.sh's end to the new generation, polling every second
)

// One stack lives through all of it, in this order, with each Compose that there is.
func TestTheStack(t *testing.T) {
	e := theEngine(t)
	t.Cleanup(func() {
		for _, image := range []string{"agent", "app", "standin"} {
			e.run(context.WithoutCancel(t.Context()), nil, "docker", "rmi", "--no-prune", "keyturn-"+image+":"+testVersion)
		}
	})
	for _, compose := range available(t, e) {
		t.Run(strings.ReplaceAll(compose, " ", "_"), func(t *testing.T) { lifeOf(t, newStack(t, e, compose)) })
	}
}

// available returns the Compose commands that this machine has. Without one the test fails: an engine was found.
func available(t *testing.T, e *engine) []string {
	t.Helper()
	var all []string
	for _, compose := range flavours {
		if _, err := e.run(t.Context(), nil, "sh", "-c", compose+" version"); err != nil {
			t.Logf("NOT TESTED: there is no %q here", compose)
			continue
		}
		all = append(all, compose)
	}
	if all == nil {
		t.Fatal("there is no Compose: install docker-compose")
	}
	return all
}

func lifeOf(t *testing.T, s *stack) {
	if _, err := s.composeCommand(t.Context(), "build"); err != nil {
		t.Fatal(err)
	}
	for _, chapter := range []struct {
		name string
		play func(*testing.T, *stack)
	}{
		{"up without a key waits and says what is missing", upWithoutAKey},
		{"a new key is in use, and nobody restarted", rotation},
		{"it is as locked down as promised", promises},
		{"the app can't reach Vault", isolation},
		{"agent and app are killed and come back, and no request fails", kills},
		{"Vault comes back empty, and the agent logs in anew", emptyVault},
		{"a key that is typed is not echoed", typedKey},
		{"a second up changes nothing", secondUp},
		{"no key shows in inspect, logs or environment", noKeyShows},
		{"down leaves nothing", downLeavesNothing},
		{"up to the first answer", upToFirstAnswer},
	} {
		if !t.Run(chapter.name, func(t *testing.T) { chapter.play(t, s) }) {
			return
		}
	}
}

func upWithoutAKey(t *testing.T, s *stack) {
	up := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_, err := s.composeCommand(ctx, "up -d")
		up <- err
	}()
	eventually(t, 30*time.Second, "the agent says what is missing", func() (bool, string) {
		said, err := s.logs(t.Context(), "agent")
		return strings.Contains(said, "there is no secret") && strings.Contains(said, "vault kv put secret/gemini"), fmt.Sprint(said, err)
	})
	if health := s.container(t, "agent").State.Health; health == nil || health.Status != "starting" {
		t.Errorf("without a key the agent's health is %+v", health)
	}
	if app, found, err := s.find(t.Context(), "app"); err != nil || found && app.State.Status == "running" {
		t.Errorf("without a key the app runs: %+v (%v)", app, err)
	}
	s.rotate(t)
	select {
	case err := <-up:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("up still waits although the key is there")
	}
	if a := s.awaitAnswer(t, 15*time.Second, 1); a.Generation != 1 {
		t.Errorf("the first key has generation %d", a.Generation)
	}
}

func rotation(t *testing.T, s *stack) {
	before := s.running(t)
	var took []time.Duration
	for range attempts {
		last := s.awaitAnswer(t, time.Second, 1).Generation
		s.rotate(t)
		written := time.Now()
		s.awaitAnswer(t, 10*time.Second, last+1)
		took = append(took, time.Since(written).Round(time.Millisecond))
	}
	t.Logf("from rotate.sh to the new generation: %v", took)
	if slices.Min(took) > newKeyInUse {
		t.Errorf("a new key was in use after %v at best, may take %v", slices.Min(took), newKeyInUse)
	}
	sameAs(t, s, before, "vault", "agent", "app", "gemini")
}

// sameAs makes sure that the containers of the services are those of before, and were never restarted.
func sameAs(t *testing.T, s *stack, before map[string]container, services ...string) {
	t.Helper()
	for _, service := range services {
		was, is := before[service], s.container(t, service)
		if is.ID != was.ID || !is.State.StartedAt.Equal(was.State.StartedAt) || is.RestartCount != was.RestartCount {
			t.Errorf("%s was restarted", service)
		}
	}
}

func kills(t *testing.T, s *stack) {
	l := s.startLoad(t)
	l.await(t, 50)

	s.e.docker(t, "kill", s.container(t, "agent").ID)
	l.await(t, 50)
	s.rotate(t) // while nobody listens
	s.e.docker(t, "start", s.container(t, "agent").ID)
	s.awaitHealthy(t, "agent")
	s.awaitAnswer(t, 10*time.Second, 5)
	l.await(t, 50)

	// An app that is told to stop finishes what it has taken; who asks meanwhile asks again.
	l.expectAbsence(true)
	s.e.docker(t, "restart", s.container(t, "app").ID)
	s.awaitHealthy(t, "app")
	l.expectAbsence(false)
	l.await(t, 50)
	l.verdict(t)

	// One that is killed drops what it has taken, so nobody asks just then. The key outlives it.
	s.e.docker(t, "kill", s.container(t, "app").ID)
	s.e.docker(t, "start", s.container(t, "app").ID)
	s.awaitHealthy(t, "app")
	if a := s.awaitAnswer(t, 5*time.Second, 1); a.Generation != 1 {
		t.Errorf("an app that was started anew counts from %d", a.Generation)
	}
}

func (s *stack) awaitHealthy(t *testing.T, service string) {
	t.Helper()
	eventually(t, 30*time.Second, service+" is healthy", func() (bool, string) {
		state := s.container(t, service).State
		return state.Health != nil && state.Health.Status == "healthy", fmt.Sprintf("%+v", state)
	})
}

func emptyVault(t *testing.T, s *stack) {
	before := s.running(t)
	last := s.awaitAnswer(t, time.Second, 1).Generation
	l := s.startLoad(t)
	s.e.docker(t, "restart", before["vault"].ID)
	s.awaitHealthy(t, "vault")
	l.await(t, 50)
	if _, err := s.composeCommand(t.Context(), "up -d"); err != nil { // runs vault-init again
		t.Fatal(err)
	}
	if init := s.container(t, "vault-init"); init.State.ExitCode != 0 {
		t.Errorf("vault-init ended with %d", init.State.ExitCode)
	}
	l.await(t, 50)
	if a := s.awaitAnswer(t, time.Second, 1); a.Generation != last {
		t.Errorf("an empty Vault changed the generation from %d to %d", last, a.Generation)
	}
	s.rotate(t)
	s.awaitAnswer(t, 15*time.Second, last+1)
	l.verdict(t)
	sameAs(t, s, before, "agent", "app", "gemini")
}

func typedKey(t *testing.T, s *stack) {
	last := s.awaitAnswer(t, time.Second, 1).Generation
	key := s.newKey()
	said := s.onTerminal(t, "examples/compose/rotate.sh", "Gemini API key: ", key)
	if strings.Contains(said, key) {
		t.Error("the terminal shows the key that was typed")
	}
	s.awaitAnswer(t, 10*time.Second, last+1)
}

func secondUp(t *testing.T, s *stack) {
	before := s.running(t)
	last := s.awaitAnswer(t, time.Second, 1).Generation
	l := s.startLoad(t)
	said := s.must(t, "", "up.sh", "local")
	if !strings.Contains(said, "which stays") {
		t.Errorf("the second up says %q", said)
	}
	if said, err := s.logs(t.Context(), "vault-init"); err != nil || !strings.HasSuffix(said, "are good and stay") {
		t.Errorf("vault-init says %q (%v)", said, err)
	}
	l.await(t, 50)
	l.verdict(t)
	if a := s.awaitAnswer(t, time.Second, 1); a.Generation != last {
		t.Errorf("a second up changed the generation from %d to %d", last, a.Generation)
	}
	sameAs(t, s, before, "vault", "agent", "app", "gemini")
}

func downLeavesNothing(t *testing.T, s *stack) {
	if err := s.down(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left, err := s.leftovers(t.Context()); err != nil || left != "" {
		t.Errorf("down leaves %q (%v)", left, err)
	}
}

func upToFirstAnswer(t *testing.T, s *stack) {
	var took []time.Duration
	for range attempts {
		started := time.Now()
		s.must(t, "", "up.sh", "local")
		s.awaitAnswer(t, time.Minute, 1)
		took = append(took, time.Since(started).Round(time.Millisecond))
		downLeavesNothing(t, s)
	}
	t.Logf("from up.sh, with images built, to the first answer: %v", took)
	if slices.Min(took) > firstAnswer {
		t.Errorf("the first answer came after %v at best, may take %v", slices.Min(took), firstAnswer)
	}
}
