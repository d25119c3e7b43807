package main

import (
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/lagtest"
	"github.com/keyturn/keyturn/examples/porttest"
)

// agentThat is what AGENT_LISTEN names, and answers /readyz as an agent that has rendered its file after a number of questions.
func agentThat(t *testing.T, rendersAfter int64) (asked *atomic.Int64) {
	asked = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > rendersAfter {
			w.Write([]byte(`{"ready":true,"files":[{"file":"key","rendered":true}]}`))
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte(`{"ready":false,"files":[{"file":"key","rendered":false,"waits_for":"Vault is sealed"}]}`))
	}))
	t.Cleanup(server.Close)
	environment(t, map[string]string{"AGENT_LISTEN": strings.TrimPrefix(server.URL, "http://")})
	return asked
}

func TestHealthAsksOnceUnlessItIsToldToWait(t *testing.T) {
	asked := agentThat(t, 2)
	if err := health(t.Context(), 0); err == nil || !strings.Contains(err.Error(), "key: Vault is sealed") || asked.Load() != 1 {
		t.Errorf("after %d questions: %v", asked.Load(), err)
	}
	if err := health(t.Context(), time.Minute); err != nil || asked.Load() != 3 {
		t.Errorf("after %d questions: %v", asked.Load(), err)
	}
}

func TestHealthThatWaitsInVainSaysWhy(t *testing.T) {
	asked := agentThat(t, 1<<20)
	for wait := 3 * lookAgain; asked.Load() < 2; wait *= 2 { // on a slow machine one question may take all of it
		asked.Store(0)
		clock := lagtest.Start(t)
		err := health(t.Context(), wait)
		if took := clock.Took(); err == nil || !strings.Contains(err.Error(), "key: Vault is sealed") || took > 3*wait || wait > time.Minute {
			t.Fatalf("after %d questions and %v of %v: %v", asked.Load(), took, wait, err)
		}
	}
}

// An agent that runs is not ill because a CA file is away for a moment, or because somebody who asks has set something wrong.
func TestWhoAsksNeedsOnlyTheVariableThatLeadsThere(t *testing.T) {
	wrong := map[string]string{"VAULT_CACERT": "/nonexistent", "VAULT_ADDR": "nowhere", "AGENT_AUTH": "none", "AGENT_POLL_INTERVAL": "soon", "AGENT_TOKN_FILE": "/x"}
	dir, variables := nowhere(t)
	leaveBehind(t, dir, canary)
	variables["AGENT_LISTEN"] = porttest.Loopback(t)
	started(t, variables)
	for name, others := range map[string]map[string]string{
		"health": {"AGENT_LISTEN": variables["AGENT_LISTEN"], "AGENT_DIR": "nowhere"},
		"status": {"AGENT_DIR": dir, "AGENT_LISTEN": "nowhere"},
	} {
		maps.Copy(others, wrong)
		environment(t, others)
		if code, _, stderr := command(t, t.Context(), name); code != exitDone || stderr != "" {
			t.Errorf("%s: exit code %d, %q", name, code, stderr)
		}
	}
}

func TestWhoAsksIsToldOfThatVariable(t *testing.T) {
	environment(t, map[string]string{"AGENT_LISTEN": canary, "AGENT_DIR": canary})
	for name, variable := range map[string]string{"health": "AGENT_LISTEN", "status": "AGENT_DIR"} {
		code, _, stderr := command(t, t.Context(), name)
		if code != exitUsage || strings.Count(stderr, "AGENT_") != 1 || !strings.Contains(stderr, variable) || strings.Contains(stderr, canary) {
			t.Errorf("%s: exit code %d, %q", name, code, stderr)
		}
	}
}

func TestOnlyAWholeDurationIsPatience(t *testing.T) {
	for _, arg := range []string{"-wait", "-wait=", "-wait=8", "-wait=-1s", "-wait=2h", "wait=8s", "-json"} {
		if wait, ok := patience([]string{"health", arg}); ok {
			t.Errorf("health %s waits %v", arg, wait)
		}
	}
	if wait, ok := patience([]string{"health", "-wait=8s"}); !ok || wait != 8*time.Second {
		t.Errorf("health -wait=8s waits %v (%v)", wait, ok)
	}
	if _, ok := patience([]string{"status", "-wait=8s"}); ok {
		t.Error("status takes -wait")
	}
}
