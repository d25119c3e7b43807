package e2e

import (
	"flag"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/internal/load"
)

var (
	allFaults  = flag.Bool("faults", false, "let each fault last, and come back as a fleet of 200 after a minute")
	faultTable = flag.String("faults.table", "", "write what became of each fault to this file, as Markdown")
)

// way is how the agent reaches Vault.
type way int

const (
	fronted   way = iota // through front
	proxied              // through faultProxy, then front
	forgotten            // through lossy, then front
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
	mend   func(w *world) // nil: nobody does anything, and the cause is gone once it has struck
	proof  func(w *world) // that it has struck, for one that the agent doesn't speak of; may be nil
	// wait is how long the store asked to be left alone.
	wait time.Duration
	// lines is the most that the agent may log until the cause is gone; 0: one. Each is another one.
	lines int
	// felt is how long it lasts until the agent says that it isn't in step; never: it doesn't say so.
	felt time.Duration
	// deaf: the agent, or the app, takes no connection from strike to mend, so only its log and the store tell how it fares.
	deaf bool
	// ends: the fault ends the agent, or the app. Else it may not.
	ends bool
	// tampers: what a reader of the file sees is not the agent's doing, until it has repaired that.
	tampers bool
}

const (
	// recovery is how long after its cause is gone a fault may show.
	recovery = 2 * time.Second
	// slowest is how long an answer may take: an app waits two seconds for a better key.
	slowest = 2500 * time.Millisecond
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

// allKinds returns all faults, in the order in which they are told of.
func allKinds() []fault {
	return slices.Concat(networkFaults, answerFaults, vaultFaults, machineFaults, clockFaults, tamperFaults, processFaults)
}

func TestEachFaultIsSurvived(t *testing.T) {
	for _, f := range allKinds() {
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
	w.agent.awaitLine(t, "in use")

	took := f.last(w)
	w.turnsOver()
	stopped()
	requests, failed := w.failures(records)
	if bound := recovery + f.wait + slack(); took > bound {
		t.Errorf("it took %v after the cause was gone, want at most %v", took, bound)
	}
	if w.torn != "" && !f.tampers {
		t.Errorf("a reader of the file saw %s", w.torn)
	}
	for _, name := range names(t, w.dir) {
		if strings.Contains(name, ".tmp-") {
			t.Errorf("%s is left", name)
		}
	}
	w.nothingLeaked()
	w.crash()
	results.add(result{f.name, f.did, requests, failed, took})
}

// last lets the fault strike, and go on until it is mended, and returns how long after that the system was in step again.
// Meanwhile neither agent nor app may end, be loud, or be busy.
func (f fault) last(w *world) (took time.Duration) {
	w.t.Helper()
	agent, app := w.mark(w.agent.process), w.mark(w.app)
	f.strike(w)
	if f.mend == nil {
		took = w.recovered(time.Now())
	}
	unwatched := []mark{w.mark(w.agent.process), w.mark(w.app)}
	<-time.After(lasts())
	if !f.ends {
		for _, m := range unwatched {
			m.idle(w.t)
		}
	}
	if f.proof != nil {
		f.proof(w)
	}
	if !f.ends {
		w.stillRuns(agent, app)
		w.asked(f, agent)
		agent.calm(w.t, max(f.lines, 1))
		agent.closes(w.t, 16) // its own to Vault and Gemini, and those of who looks at it
		app.calm(w.t, appLines)
		app.closes(w.t, 256) // one a request that is under way
		if !f.deaf {
			w.nothingLeaked()
			if lasts() > f.felt && w.inStep() {
				w.t.Error("the agent doesn't notice that anything is wrong")
			}
		}
	}
	if f.mend == nil {
		return took
	}
	mended := time.Now() // whoever has ended is up again when he works
	f.mend(w)
	if !f.ends {
		mended = time.Now()
	}
	agent, app = w.mark(w.agent.process), w.mark(w.app)
	took = w.recovered(mended)
	agent.calm(w.t, linesAfter)
	app.calm(w.t, appLines)
	return took
}

// turnsOver checks that the next key comes into use as fast as if nothing had been.
func (w *world) turnsOver() {
	w.t.Helper()
	began := time.Now()
	w.rotate()
	took := w.recovered(began)
	if bound := poll + recovery + slack(); took > bound {
		w.t.Errorf("the next key is in use after %v, want at most %v", took, bound)
	}
}
