package server

import (
	"log/slog"
	"sync"
	"time"

	"github.com/keyturn/keyturn/app/gemini"
)

// quiet is how long no call may have failed in a way until that is over.
const quiet = time.Minute

// troubles tells the log, and so a person, that calls fail since Gemini is not set up or not there, and that they no longer
// do. Callers are not told why: the reason names the project, or hosts of this network. It is redacted, and tells of no
// prompt, since it isn't the prompt that is at fault.
//
// Good and bad answers in turn are one trouble: its end is said with the first good answer after a time that is quiet. So
// there is at most one beginning and one end a minute of each kind, whatever happens.
type troubles struct {
	log *slog.Logger

	mu  sync.Mutex
	now map[outcome]*trouble
}

type trouble struct {
	began, last time.Time
	failures    int
}

func newTroubles(log *slog.Logger) *troubles { return &troubles{log: log, now: map[outcome]*trouble{}} }

// failed notes a failure, and says so if it is the first.
func (t *troubles) failed(kind outcome, e *gemini.Error) {
	switch {
	case !t.begin(kind):
	case kind == configuration:
		t.log.Error("Gemini is not set up for this; a person is needed", "reason", e.Error())
	default:
		t.log.Warn("Gemini is unavailable", "reason", e.Error())
	}
}

func (t *troubles) begin(kind outcome) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	this, ok := t.now[kind]
	if !ok {
		this = &trouble{began: time.Now()}
		t.now[kind] = this
	}
	this.last = time.Now()
	this.failures++
	return !ok
}

// succeeded notes a good answer, and says what is over.
func (t *troubles) succeeded() {
	for kind, over := range t.end() {
		t.log.Info("Gemini answers again", "after", string(kind), "failures", over.failures, "lasted", over.last.Sub(over.began).String())
	}
}

func (t *troubles) end() map[outcome]trouble {
	t.mu.Lock()
	defer t.mu.Unlock()
	over := map[outcome]trouble{}
	for kind, this := range t.now {
		if time.Since(this.last) >= quiet {
			over[kind] = *this
			delete(t.now, kind)
		}
	}
	return over
}
