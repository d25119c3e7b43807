package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/internal/load"
	"github.com/keyturn/keyturn/examples/lagtest"
)

// processFaults happen to agent and app themselves.
var processFaults = []fault{
	{
		name: "agent killed", ends: true, did: "SIGKILL, and another agent in its place",
		strike: func(w *world) { w.end(w.agent.process) },
		mend:   func(w *world) { w.startAgent() },
	},
	{
		name: "app killed", did: "SIGKILL under load, and another app in its place; what was asked between has nobody to answer it, and isn't counted", ends: true,
		strike: func(w *world) { w.killApp() },
		mend:   func(w *world) { w.restartApp() },
	},
	{
		name: "both killed", did: "SIGKILL; the app is started first, and serves with the file that is there", ends: true,
		strike: func(w *world) { w.end(w.agent.process); w.killApp() },
		mend:   func(w *world) { w.restartApp(); w.startAgent() },
	},
	killedAt("made", "once its temporary file is made"),
	killedAt("permitted", "once that has its mode and place"),
	killedAt("written", "once that holds the key"),
	killedAt("dated", "before the rename"),
	killedAt("renamed", "after the rename"),
	{
		name: "agent killed in a repair", did: "somebody gives the file mode 0644, and SIGKILL before the repair's rename", ends: true, tampers: true,
		setting: setting{file: "key.dated", before: func(w *world) { stoppable(w.t) }},
		strike: func(w *world) {
			w.end(w.agent.process)
			w.startAgent(func(c *exec.Cmd) { c.Path = stoppable(w.t) })
			w.agent.ready(w.t)
			w.try(os.Chmod(w.path(), 0o644))
			w.stopsAt("dated")
			w.end(w.agent.process)
		},
		mend: func(w *world) { w.startAgent() },
	},
}

// killedAt is an agent that is killed at one step of a write.
func killedAt(step, when string) fault {
	return fault{
		name: "agent killed in a write: " + step, did: "SIGKILL " + when, ends: true, setting: setting{file: "key." + step, before: func(w *world) { stoppable(w.t) }},
		strike: func(w *world) {
			w.end(w.agent.process)
			w.startAgent(func(c *exec.Cmd) { c.Path = stoppable(w.t) })
			w.rotate()
			w.stopsAt(step)
			w.end(w.agent.process)
		},
		mend: func(w *world) { w.startAgent() },
	}
}

// stopsAt waits until the agent stops at a step of a write.
func (w *world) stopsAt(step string) {
	w.t.Helper()
	eventually(w.t, "it stops at "+step, func() bool { return w.agent.state(w.t) == "T" })
	if n := w.temporary(); n != 1 && step != "renamed" {
		w.t.Errorf("there are %d temporary files, want one: it wasn't stopped in the middle", n)
	}
}

// stoppable returns an agent that stops within a write if the name of its file says so.
func stoppable(t *testing.T) string {
	t.Helper()
	return ours.buildAs(t, "keyturn-agent-stoppoints", repository(t), "./agent", "-tags", "stoppoints")
}

// state returns the letter that says what a process does (proc(5)): T is stopped.
func (p *process) state(t testing.TB) string {
	t.Helper()
	stat := string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))))
	return strings.Fields(stat[strings.LastIndex(stat, ")")+1:])[0]
}

// temporary returns how many files that are being written there are.
func (w *world) temporary() (n int) {
	w.t.Helper()
	return len(must[[]string](w.t)(filepath.Glob(filepath.Join(w.dir, ".*.tmp-*"))))
}

func TestAgentAndAppMayStartInEitherOrder(t *testing.T) {
	for _, c := range []struct {
		name, did string
		start     func(w *world)
	}{
		{"agent first", "the app finds the file there", func(w *world) { w.startAgent(); w.agent.ready(w.t); w.startApp() }},
		{"app first", "there is neither file nor directory, nor an agent, until a while later", func(w *world) {
			w.startApp()
			<-time.After(lasts())
			if status, _ := get(w.t, w.appURL+"/readyz"); status != 503 {
				w.t.Errorf("an app without a key says %d", status)
			}
			w.startAgent()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, setting{})
			c.start(w)
			began, clock := time.Now(), lagtest.Start(t)
			w.serves()
			took := time.Since(began)
			if clock.Took() > recovery+slack() {
				t.Errorf("it serves %v after the second has started", took)
			}
			records := load.Run(t.Context(), nil, load.Config{URL: w.appURL, Rate: rate, Limit: rate, Prompt: func(id int) string { return fmt.Sprint(id) }})
			requests, failed := w.failures(records)
			w.nothingLeaked()
			w.crash()
			results.add(result{c.name, c.did, requests, failed, took})
		})
	}
}

// Nobody may be in the way of a Vault that comes back: the agents' probes are spread, and each that succeeds is the read itself.
func TestAFleetDoesNotRushIntoAVaultThatComesBack(t *testing.T) {
	agents, out := 25, 5*time.Second
	if *allFaults {
		agents, out = 200, time.Minute
	}
	w := newWorld(t, setting{ownVault: true})
	program := ours.buildAs(t, "keyturn-agent-plain", repository(t), "./agent", "-trimpath", "-ldflags", "-s -w")
	fleet := make([]*agent, agents)
	environ := append([]string{"AGENT_SECRETS=" + w.file + "=secret/" + w.secret + "#k", "AGENT_POLL_INTERVAL=15s"}, append(w.login, w.reach...)...)
	for i := range fleet {
		fleet[i] = startAgent(t, filepath.Join(memory(t), "keys"), environ, func(c *exec.Cmd) { c.Path = program })
	}
	for _, a := range fleet {
		a.started(t).ready(t)
	}
	w.try(w.vault.Seal(t.Context()))
	for _, a := range fleet {
		eventually(t, "the agent has noticed", func() bool { up, _ := a.metric(t, "keyturn_agent_store_up", ""); return up == 0 })
	}
	<-time.After(out)
	w.try(w.vault.Unseal(t.Context()))
	back, clock := time.Now(), lagtest.Start(t)
	for _, a := range fleet { // by their logs: to ask two hundred agents would take what they need themselves
		a.awaitLine(t, "the store answers again")
	}
	took, own := time.Since(back), clock.Took()
	busiest, bound := w.front.busiest(back.Add(-out/2), time.Now()), agents // a probe comes a second after the last one at the earliest
	if busiest > bound {
		t.Errorf("Vault got %d requests of %d agents in one second, want at most %d", busiest, agents, bound)
	}
	if own > recovery+slack() {
		t.Errorf("the last agent is back after %v", took)
	}
	did := fmt.Sprintf("%d agents and one Vault, sealed for %.0f s: at most %d requests in any second around its return (bound: %d)", agents, out.Seconds(), busiest, bound)
	results.add(result{"a fleet comes back", did, 0, 0, took})
}
