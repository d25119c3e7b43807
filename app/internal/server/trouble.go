package server

import (
	"log/slog"
	"sync"
	"time"

	"github.com/keyturn/keyturn/app/gemini"
)

// quiet is how long no call may have failed in a way until that is over, and the least time between two reasons for it.
const quiet = time.Minute

// troubles tells the log, and so a person, that calls fail since Gemini is not set up or not there, and that they no longer
// do. Callers are not told why: the reason names the project, or hosts of this network. It is redacted, and tells of no
// prompt, since it isn't the prompt that is at fault.
//
// Good and bad answers in turn are one trouble: its end is said with the first good answer after a time that is quiet. A
// reason that differs from the last that was said is said as well, once it is a minute since. So there is at most one reason
// and one end a minute of each kind, whatever happens.
type troubles struct {
	log *slog.Logger

	mu  sync.Mutex
	now map[outcome]*trouble
}

type trouble struct {
	began, last time.Time
	failures    int
	reason      string // that was said last
	said        time.Time
}

func newTroubles(log *slog.Logger) *troubles { return &troubles{log: log, now: map[outcome]*trouble{}} }

// failed notes a failure, and says so if it is the first, or its reason another than was said and that a minute ago.
func (t *troubles) failed(kind outcome, e *gemini.Error) {
	switch reason := e.Error(); {
	case !t.news(kind, reason):
	case kind == configuration:
		t.log.Error("Gemini is not set up for this; a person is needed", "reason", reason)
	default:
		t.log.Warn("Gemini is unavailable", "reason", reason)
	}
}

func (t *troubles) news(kind outcome, reason string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	now := time.Now()
	this, ok := t.now[kind]
	if !ok {
		this = &trouble{began: now}
		t.now[kind] = this
	}
	this.last = now
	this.failures++
	if ok && (reason == this.reason || now.Sub(this.said) < quiet) {
		return false
	}
	this.reason, this.said = reason, now
	return true
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
