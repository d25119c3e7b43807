package e2e

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/examples/internal/load"
	"github.com/keyturn/keyturn/examples/leaktest"
)

// Whatever else goes wrong, each fault's own test searches all that came out meanwhile. This one is about what a program
// prints when it is made to crash.
func TestNoSecretStandsInTheTracesOfACrash(t *testing.T) {
	w := newWorld(t, setting{appRole: true})
	w.startAgent(withEnviron("GOTRACEBACK=all"))
	w.agent.ready(t)
	w.startApp()
	w.serves()
	records := load.Run(t.Context(), nil, load.Config{URL: w.appURL, Rate: rate, Streams: 0.5, Limit: rate, Prompt: func(id int) string { return fmt.Sprint(id) }})
	fault{}.failures(t, records, records[0].Due, records[0].Due)
	w.nothingLeaked()
	for name, p := range map[string]*process{"agent": w.agent.process, "app": w.app} {
		p.signal(syscall.SIGABRT)
		p.exit(t)
		trace := p.stderr.String()
		if !strings.Contains(trace, "goroutine 1") {
			t.Errorf("the %s left no trace:\n%s", name, trace)
		}
		for i, secret := range w.secrets {
			if form, found := leaktest.Find(trace, secret); found {
				t.Errorf("secret %d stands in the %s's trace, as %s", i+1, name, form)
			}
		}
	}
}

// The search for leaks is only worth as much as the places that it looks at: in each of them something is found that must
// be there.
func TestTheSearchForLeaksLooksWhereThingsComeOut(t *testing.T) {
	w := newWorld(t, setting{})
	w.startAgent()
	w.agent.ready(t)
	w.startApp()
	w.serves()
	out := w.output()
	for where, what := range map[string]string{
		"the URLs that Vault got": w.secret,
		"what the agent printed":  w.dir,
		"what the app printed":    w.path(),
		"the agent's environ":     "AGENT_POLL_INTERVAL=1s",
		"the app's environ":       "APP_LOG_LEVEL=debug",
		"the agent's cmdline":     "keyturn-agent",
		"the app's cmdline":       "keyturn-app",
		w.agent.url + "/readyz":   w.file,
		w.agent.url + "/metrics":  w.file,
		w.appURL + "/readyz":      "ready",
		w.appURL + "/metrics":     "keyturn_app",
		w.appURL + "/status":      "generation",
		w.appURL + "/nowhere":     "404",
	} {
		if _, found := leaktest.Find(out[where], what); !found {
			t.Errorf("%q isn't found in %s:\n%s", what, where, out[where])
		}
	}
}
