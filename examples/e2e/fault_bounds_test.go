package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/internal/load"
)

const (
	// linesAfter is how many lines an agent may log once the cause is gone: that it is in step again, in which way, that what it
	// has is published and in use, and a login.
	linesAfter = 5
	// appLines is how many lines an app may log from a fault's beginning to its end, and again from there: one a key, or that it
	// can't read the file and can't ask the agent, and that each is over.
	appLines = 4
)

// mark is how far a process had come at one moment.
type mark struct {
	*process
	at          time.Time
	lines       int
	busy        time.Duration
	descriptors int
}

func (w *world) mark(p *process) mark {
	w.t.Helper()
	if !p.runs() {
		return mark{process: p, at: time.Now()}
	}
	return mark{p, time.Now(), len(p.log()), p.cpu(w.t), p.descriptors(w.t)}
}

// calm checks that a process has said little since, and nothing twice.
func (m mark) calm(t *testing.T, most int) {
	t.Helper()
	lines := m.log()[m.lines:]
	distinct := map[logged]bool{}
	for _, l := range lines {
		if distinct[l] {
			t.Errorf("%s said twice: %+v", m.cmd.Path, l)
		}
		distinct[l] = true
	}
	if len(lines) > most {
		t.Errorf("%s logged %d lines, want at most %d: %+v", m.cmd.Path, len(lines), most, lines)
	}
}

// idle checks that a process has used little of the processor since. Nobody may have asked it for its metrics meanwhile: with
// the race detector those cost more than all else that it does.
func (m mark) idle(t *testing.T) {
	t.Helper()
	if used, lasted := m.cpu(t)-m.busy, time.Since(m.at); used > lasted/5 {
		t.Errorf("%s used %v of the processor within %v", m.cmd.Path, used, lasted)
	}
}

// closes checks that a process has kept few descriptors since, besides those of spare connections.
func (m mark) closes(t *testing.T, spare int) {
	t.Helper()
	if n := m.process.descriptors(t); n > m.descriptors+spare {
		t.Errorf("%s has %d descriptors open, after %d", m.cmd.Path, n, m.descriptors)
	}
}

// stillRuns checks that neither process has ended, or been replaced.
func (w *world) stillRuns(marks ...mark) {
	w.t.Helper()
	for _, m := range marks {
		if !m.runs() || m.process != w.agent.process && m.process != w.app {
			w.t.Fatalf("%s has ended", m.cmd.Path)
		}
	}
}

// onset is what finding out may cost besides: a login, the question for the mount, whether the store answers at all, and the
// read that is made again.
const onset = 4

// foundOut is when an agent that reads once a second, give or take a tenth, has found out, and done about it what it can.
const foundOut = 1500 * time.Millisecond

// asked checks how much an agent has asked of the store since.
func (w *world) asked(f fault, since mark) {
	w.t.Helper()
	now := time.Now()
	lasted := now.Sub(since.at)
	asked, bound := w.front.requests(since.at, now), requestsASecond*lasted.Seconds()+onset
	if f.wait > 0 {
		bound = lasted.Seconds()/f.wait.Seconds() + 3
	}
	if float64(asked) > bound {
		w.t.Errorf("the store got %d requests in %v, want at most %.0f", asked, lasted, bound)
	}
	if most := w.front.busiest(since.at.Add(foundOut+slack()), now); most > requestsASecond {
		w.t.Errorf("the store got %d requests within a second, want at most %d", most, requestsASecond)
	}
}

// recovered waits until the agent is in step with the store again and the app uses what it has, and returns how long after
// from that was.
func (w *world) recovered(from time.Time) time.Duration {
	w.t.Helper()
	seconds := float64(from.UnixNano()) / 1e9
	eventually(w.t, "agent and app are in step with the store again", func() bool {
		at := w.ofFile("store_read_timestamp_seconds")
		now := float64(time.Now().UnixNano()) / 1e9 // a read that is dated later was made before the clock jumped back
		return seconds <= at && at <= now && w.inStep() && holds(w.path(), w.current) && w.ofFile("file_in_use_version") == w.ofFile("file_version")
	})
	return time.Since(from)
}

// ofFile returns the value of a metric of the agent about the one file.
func (w *world) ofFile(name string) float64 {
	w.t.Helper()
	value, _ := w.agent.metric(w.t, "keyturn_agent_"+name, fmt.Sprintf("file=%q", w.file))
	return value
}

// inStep reports whether the agent says that the store answers and that the file holds what the store holds.
func (w *world) inStep() bool {
	w.t.Helper()
	up, _ := w.agent.metric(w.t, "keyturn_agent_store_up", "")
	return up == 1 && w.ofFile("file_in_step") == 1
}

// absence is a time in which there was no app, or none that could take a new connection.
type absence struct{ from, to time.Time }

// failures returns how many requests had somebody there to answer them, and how many of those failed, or took too long. It
// wants none.
func (w *world) failures(records []load.Record) (requests, failed int) {
	w.t.Helper()
	for _, r := range records {
		good := r.OK() && r.Latency() <= slowest
		if !good && w.nobodyThere(r) {
			continue
		}
		requests++
		if !good {
			failed++
			if failed <= 3 {
				w.t.Errorf("request %d failed or was slow (%v), though there was a good key: %s", r.ID, r.Latency(), r.Fault)
			}
		}
	}
	if requests < rate {
		w.t.Errorf("only %d requests were made", requests)
	}
	return requests, failed
}

func (w *world) nobodyThere(r load.Record) bool {
	for _, a := range w.absences {
		if r.Done.After(a.from) && r.Due.Before(a.to) {
			return true
		}
	}
	return false
}

// killApp ends the app, and restartApp starts another in its place, and returns when it is ready.
func (w *world) killApp() {
	w.t.Helper()
	w.away()
	w.end(w.app)
}

func (w *world) restartApp() {
	w.t.Helper()
	w.startApp()
	w.serves()
	w.back()
}

// away begins an absence, and back ends it.
func (w *world) away() {
	w.absences = append(w.absences, absence{from: time.Now(), to: time.Now().Add(time.Hour)})
}

func (w *world) back() { w.absences[len(w.absences)-1].to = time.Now() }

// onlyJSON checks that nothing else was printed than lines of the log.
func onlyJSON(t *testing.T, who, printed string) {
	t.Helper()
	for line := range strings.Lines(printed) {
		if !strings.HasPrefix(line, "{") {
			t.Errorf("%s printed what is no line of its log: %s", who, line)
			return
		}
	}
}
