package e2e

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/internal/load"
	"github.com/keyturn/keyturn/examples/leaktest"
)

var (
	allFaults  = flag.Bool("faults", false, "let each fault last, and come back as a fleet of 200 after a minute")
	faultTable = flag.String("faults.table", "", "write what became of each fault to this file, as Markdown")
)

// way is how the agent reaches Vault.
type way int

const (
	fronted way = iota // through front
	proxied            // through faultProxy, then front
	direct
)

// setting says what world a fault happens in.
type setting struct {
	way      way
	ownVault bool // it is sealed, stopped or killed
	appRole  bool // the agent logs in by AppRole, and not with a token that was given to it
	uid      uint32
	dir      func(w *world) string // where to render; nil: a tmpfs like any other
	file     string                // what to render; empty: keyName
	before   func(w *world)        // done before agent and app start; may be nil

	build func(t testing.TB, half string) string // returns the path of agent or app; nil: as they ship
}

// fault is one thing that goes wrong while requests run.
type fault struct {
	name, did string
	setting
	strike func(w *world)
	mend   func(w *world) // nil: nobody does anything
	// wait is how long the store asked to be left alone.
	wait time.Duration
	// lines is the most that the agent may log until the cause is gone; 0: two. Each is another one.
	lines int
	// felt is how long it lasts until the agent says that it isn't in step; never: it doesn't say so.
	felt time.Duration
	// deaf: the agent answers nobody from strike to mend, so only its log and the store tell how it fares.
	deaf bool
	// down: there is no app from strike to mend, so what is asked meanwhile has nobody to answer it.
	down bool
}

const (
	// recovery is how long after its cause is gone a fault may show.
	recovery = 2 * time.Second
	// requestsASecond bounds what the store gets from an agent while it fails.
	requestsASecond = 2
)

// never is longer than any fault lasts.
const never = time.Hour

// lasts is how long a fault goes on.
func lasts() time.Duration {
	if *allFaults {
		return 15 * time.Second // longer than any timeout of the agent
	}
	return 2 * time.Second
}

// slack is what a machine that has other tests to run adds to the recovery.
func slack() time.Duration {
	if *allFaults {
		return 0
	}
	return 500 * time.Millisecond
}

func TestEachFaultIsSurvived(t *testing.T) {
	for _, f := range slices.Concat(networkFaults, answerFaults, vaultFaults, machineFaults, clockFaults, processFaults) {
		t.Run(f.name, func(t *testing.T) {
			if f.build != nil { // before anything runs whose time is taken
				f.build(t, "agent")
				f.build(t, "app")
			}
			t.Parallel()
			f.happen(t)
		})
	}
}

// happen lets a fault strike a system under load and holds the system to what it promises.
func (f fault) happen(t *testing.T) {
	w := newWorld(t, f.setting)
	if f.before != nil {
		f.before(w)
	}
	w.startAgent()
	w.agent.ready(t)
	w.startApp()
	w.serves()
	stop := make(chan struct{})
	var records []load.Record
	var background sync.WaitGroup
	background.Go(func() { records = w.ask(stop) })
	background.Go(func() { w.watch(stop) })
	stopped := sync.OnceFunc(func() { close(stop); background.Wait() })
	defer stopped()

	struck, mended, took := f.last(w)
	before := w.generation()
	w.rotate()
	eventually(t, "the next key is served", func() bool { return w.generation() > before })
	stopped()
	failed := f.failures(t, records, struck, mended)
	if bound := recovery + f.wait + slack(); took > bound {
		t.Errorf("it took %v after the cause was gone, want at most %v", took, bound)
	}
	if w.torn != "" {
		t.Errorf("a reader of the file saw %s", w.torn)
	}
	for _, name := range names(t, w.dir) {
		if strings.Contains(name, ".tmp-") {
			t.Errorf("%s is left", name)
		}
	}
	w.nothingLeaked()
	results.add(result{f.name, f.did, len(records), failed, took})
}

// last lets the fault strike, and go on until it is mended, and returns how long after that the agent was in step again.
// Meanwhile it may neither end, nor be loud, nor busy.
func (f fault) last(w *world) (struck, mended time.Time, took time.Duration) {
	w.t.Helper()
	agent, app := w.agent, w.app
	said, busy, failures, served := len(agent.log()), agent.cpu(w.t), w.readFailures(), app.cpu(w.t)
	struck = time.Now()
	f.strike(w)
	if f.mend == nil {
		took = w.recovered(struck)
	}
	<-time.After(lasts())
	if agent == w.agent && agent.runs() {
		w.bounded(f, struck, said, busy, failures)
	}
	if app == w.app && app.runs() {
		if used, lasted := app.cpu(w.t)-served, time.Since(struck); used > lasted/2 {
			w.t.Errorf("the app used %v of the processor within %v", used, lasted)
		}
	}
	if f.mend == nil {
		return struck, struck, took
	}
	f.mend(w)
	mended = time.Now()
	return struck, mended, w.recovered(mended)
}

// bounded checks what the agent has done since the fault struck.
func (w *world) bounded(f fault, struck time.Time, said int, busy time.Duration, failures float64) {
	w.t.Helper()
	lasted := time.Since(struck)
	lines := w.agent.log()[said:]
	distinct := map[logged]bool{}
	for _, l := range lines {
		if distinct[l] {
			w.t.Errorf("the agent said twice: %+v", l)
		}
		distinct[l] = true
	}
	if most := cmp.Or(f.lines, 2); len(lines) > most {
		w.t.Errorf("the agent logged %d lines, want at most %d: %+v", len(lines), most, lines)
	}
	asked := w.front.requests(struck, time.Now())
	if !f.deaf {
		asked = max(asked, int(w.readFailures()-failures))
	}
	if bound := requestsASecond*lasted.Seconds() + 2; float64(asked) > bound {
		w.t.Errorf("the store got %d requests in %v, want at most %.0f", asked, lasted, bound)
	}
	if !f.deaf && lasts() > f.felt && w.inStep() {
		w.t.Error("the agent doesn't notice that anything is wrong")
	}
	if used := w.agent.cpu(w.t) - busy; used > lasted/2 {
		w.t.Errorf("the agent used %v of the processor within %v", used, lasted)
	}
}

// readFailures returns how many reads of the store have failed.
func (w *world) readFailures() (n float64) {
	w.t.Helper()
	_, body := get(w.t, w.agent.url+"/metrics")
	for line := range strings.Lines(string(body)) {
		if rest, found := strings.CutPrefix(line, "keyturn_agent_store_read_failures_total{"); found {
			var one float64
			fmt.Sscan(rest[strings.LastIndex(rest, " ")+1:], &one)
			n += one
		}
	}
	return n
}

// recovered waits until the agent is in step with the store again, and returns how long after from that was.
func (w *world) recovered(from time.Time) time.Duration {
	w.t.Helper()
	seconds := float64(from.UnixNano()) / 1e9
	eventually(w.t, "the agent is in step with the store again", func() bool {
		at, _ := w.agent.metric(w.t, "keyturn_agent_store_read_timestamp_seconds", fmt.Sprintf("file=%q", w.file))
		now := float64(time.Now().UnixNano()) / 1e9 // a read that is dated later was made before the clock jumped back
		return seconds <= at && at <= now && w.inStep() && holds(w.path(), w.current)
	})
	return time.Since(from)
}

// inStep reports whether the agent says that the store answers and that the file holds what the store holds.
func (w *world) inStep() bool {
	w.t.Helper()
	up, _ := w.agent.metric(w.t, "keyturn_agent_store_up", "")
	in, _ := w.agent.metric(w.t, "keyturn_agent_file_in_step", fmt.Sprintf("file=%q", w.file))
	return up == 1 && in == 1
}

// failures returns how many requests failed that somebody was there to answer, and wants none.
func (f fault) failures(t *testing.T, records []load.Record, struck, mended time.Time) (failed int) {
	t.Helper()
	for _, r := range records {
		if r.OK() || f.down && r.Done.After(struck) && r.Due.Before(mended) {
			continue
		}
		failed++
		if failed <= 3 {
			t.Errorf("request %d failed, though there was a good key: %s", r.ID, r.Fault)
		}
	}
	if len(records) < rate {
		t.Errorf("only %d requests were made", len(records))
	}
	return failed
}

// nothingLeaked searches all that came out of agent and app for every secret that there was.
func (w *world) nothingLeaked() {
	w.t.Helper()
	out := w.output()
	for where, text := range out {
		for i, secret := range w.secrets {
			if form, found := leaktest.Find(text, secret); found {
				w.t.Errorf("secret %d stands in %s, as %s", i+1, where, form)
			}
		}
	}
	if n := w.gemini.KeysInURLs(); n != 0 {
		w.t.Errorf("%d requests to Gemini had a key in their URL", n)
	}
}

// output returns everything that agent and app show to others.
func (w *world) output() map[string]string {
	w.t.Helper()
	out := map[string]string{"what ended processes printed": w.said.String(), "the URLs that Vault got": w.front.seen()}
	for name, p := range map[string]*process{"agent": w.agent.process, "app": w.app} {
		out["what the "+name+" printed"] = p.stderr.String()
		for _, what := range []string{"environ", "cmdline"} {
			out["the "+name+"'s "+what] = string(must[[]byte](w.t)(os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, what))))
		}
	}
	for _, url := range []string{w.agent.url + "/readyz", w.agent.url + "/livez", w.agent.url + "/metrics",
		w.appURL + "/readyz", w.appURL + "/livez", w.appURL + "/metrics", w.appURL + "/status", w.appURL + "/nowhere"} {
		_, body := get(w.t, url)
		out[url] = string(body)
	}
	return out
}
