// Package gate decides whether a value may be published: every value must be well-formed, and a Gemini API key must be
// accepted by Gemini before an app gets it.
//
// A fresh key is refused by some of Google's front ends for minutes, so one acceptance proves little: a key must be
// accepted several times in a row, each time over a connection of its own. Once is enough while the key in force is
// refused, since then nothing can be lost.
package gate

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// MaxSize is the most bytes that a rendered file may hold. The app refuses larger ones too.
const MaxSize = 4 << 10

// proofs is how often in a row a new key must be accepted.
const proofs = 3

// Prober asks Gemini about a key.
type Prober interface {
	// Probe asks once whether key is accepted, over a fresh connection if fresh is set. It may block, within its own bound.
	Probe(ctx context.Context, key secret.Value, fresh bool) Answer
}

// Gate is a turn.Gate. It is safe for concurrent use.
type Gate struct {
	prober Prober
	files  []string
}

// New returns a gate that has the values of files, and of no others, proven by prober.
func New(prober Prober, files ...string) *Gate { return &Gate{prober, files} }

// Refused implements turn.Gate, with one call.
func (g *Gate) Refused(ctx context.Context, file string, inForce secret.Value) bool {
	return g.proves(file) && g.prober.Probe(ctx, inForce, false).Kind == Refused
}

// Judge implements turn.Gate.
func (g *Gate) Judge(ctx context.Context, c turn.Candidate) turn.Verdict {
	if held := malformed(c.Value.Reveal()); held != "" {
		return turn.Verdict{Held: held}
	}
	if !g.proves(c.File) {
		return turn.Verdict{}
	}
	v, answer := g.prove(ctx, c)
	switch answer.Kind {
	case Accepted:
	case Refused:
		v.Held, v.Refused = "Gemini refuses the key: "+answer.Reason, true
	case Blocked:
		g.judgeBlocked(ctx, c, &v, answer)
	case Unknown:
		if c.RefusedBefore {
			v.Held = "Gemini refused the key before, and can't be asked now: " + answer.Reason
		} else {
			v.Unproven = "Gemini can't be asked: " + answer.Reason
		}
	}
	v.Retry, v.RetryAfter = v.Held != "", answer.RetryAfter
	return v
}

func (g *Gate) proves(file string) bool { return slices.Contains(g.files, file) }

// prove asks about the candidate until it has enough proofs or something else than an acceptance.
func (g *Gate) prove(ctx context.Context, c turn.Candidate) (v turn.Verdict, last Answer) {
	needed := proofs
	if c.Known {
		needed = 1
	}
	var claim sync.WaitGroup
	if c.Claimed && !c.Known && !c.InForce.IsZero() {
		claim.Go(func() { v.InForceRefused = g.prober.Probe(ctx, c.InForce, false).Kind == Refused })
	}
	calls := 1
	last = g.prober.Probe(ctx, c.Value, false)
	claim.Wait()
	if v.InForceRefused {
		needed = 1
	}
	for ; last.Kind == Accepted && calls < needed; calls++ {
		last = g.prober.Probe(ctx, c.Value, true)
		if last.Kind == Refused {
			last.Reason += fmt.Sprintf(" (after it was accepted %d times: not all front ends know it yet)", calls)
		}
	}
	v.Calls = calls
	return v, last
}

// judgeBlocked judges a key whose project or API is refused, rather than the key itself. That is worse than the key in
// force, unless that one gets the same answer.
func (g *Gate) judgeBlocked(ctx context.Context, c turn.Candidate, v *turn.Verdict, answer Answer) {
	if !c.InForce.IsZero() {
		v.Calls++
		if inForce := g.prober.Probe(ctx, c.InForce, false); inForce.Kind == Blocked && inForce.Reason == answer.Reason {
			v.Unproven = "the key in force gets the same answer: " + answer.Reason
			return
		}
	}
	v.Held = "Gemini refuses the key's project or API: " + answer.Reason
}

// malformed says what is wrong with b, never quoting it; "" if nothing is.
func malformed(b []byte) string {
	switch {
	case len(b) == 0:
		return "the value is empty: write one to the store"
	case len(b) > MaxSize:
		return "the value is longer than 4 KiB: this is no key, name another field"
	case b[len(b)-1] == '\n':
		return "the value ends with a newline: write it without (printf %s, or echo -n)"
	}
	for _, c := range b {
		if c < ' ' || c == 0x7f {
			return "the value has a control character: write it without"
		}
	}
	return ""
}
