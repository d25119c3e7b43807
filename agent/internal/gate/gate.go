// Package gate decides whether a value may be published: every value must be well-formed, and a Gemini API key must be
// accepted by Gemini before an app gets it.
//
// A fresh key is refused by some of Google's front ends for minutes, so one acceptance proves little: a key must be
// accepted several times in a row, each time over a connection of its own. Once is enough while the key in force is
// refused, since then nothing can be lost.
package gate

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

const (
	// MaxSize is the most bytes that a rendered file may hold. The app refuses larger ones too.
	MaxSize = 4 << 10
	// proofs is how often in a row a new key must be accepted.
	proofs = 3
	// urgent bounds a proof while the key in force is refused, or said to be: requests wait for the new one, for 2 s at most.
	urgent = 1500 * time.Millisecond
)

// Prober asks Gemini about a key.
type Prober interface {
	// Probe asks once whether key is accepted, over a connection of its own. It may block, within its own bound. It may be
	// called concurrently.
	Probe(ctx context.Context, key secret.Value) Answer
}

// Gate is a turn.Gate. It is safe for concurrent use.
type Gate struct {
	prober Prober
	files  []string
}

// New returns a gate that has the values of files, and of no others, proven by prober.
func New(prober Prober, files ...string) *Gate { return &Gate{prober, files} }

// Refused implements turn.Gate, with one call for a file whose values are proven, and none for others.
func (g *Gate) Refused(ctx context.Context, file string, inForce secret.Value) (refused, known bool) {
	if !g.proves(file) {
		return false, false
	}
	ctx, cancel := context.WithTimeout(ctx, urgent)
	defer cancel()
	kind := g.prober.Probe(ctx, inForce).Kind
	return kind == Refused, kind == Refused || kind == Accepted
}

// Judge implements turn.Gate.
func (g *Gate) Judge(ctx context.Context, c turn.Candidate) turn.Verdict {
	isKey := g.proves(c.File)
	if held := malformed(c.Value.Reveal(), isKey); held != "" {
		return turn.Verdict{Held: held}
	}
	if !isKey {
		return turn.Verdict{}
	}
	if c.Claimed || c.Known {
		bounded, cancel := context.WithTimeout(ctx, urgent)
		defer cancel()
		ctx = bounded
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

// prove asks about the candidate until it has enough proofs or something else than an acceptance. Where the key in force is
// said to be refused, it asks about that one meanwhile.
func (g *Gate) prove(ctx context.Context, c turn.Candidate) (v turn.Verdict, answer Answer) {
	var claim sync.WaitGroup
	if c.Claimed && !c.Known && !c.InForce.IsZero() {
		claim.Go(func() { v.InForceRefused = g.prober.Probe(ctx, c.InForce).Kind == Refused })
	}
	v.Calls = 1
	answer = g.prober.Probe(ctx, c.Value)
	claim.Wait()
	if answer.Kind != Accepted || c.Known || v.InForceRefused {
		return v, answer
	}
	v.Calls = proofs
	answer = g.proveAgain(ctx, c.Value)
	if answer.Kind == Refused {
		answer.Reason += ", though it was accepted a moment before: not all of its front ends know the key yet"
	}
	return v, answer
}

// proveAgain gets the further proofs, all at once, and returns the answer that says most against the key.
func (g *Gate) proveAgain(ctx context.Context, key secret.Value) Answer {
	var answers [proofs - 1]Answer
	var asking sync.WaitGroup
	for i := range answers {
		asking.Go(func() { answers[i] = g.prober.Probe(ctx, key) })
	}
	asking.Wait()
	for _, against := range []Kind{Refused, Blocked, Unknown} {
		if i := slices.IndexFunc(answers[:], func(a Answer) bool { return a.Kind == against }); i >= 0 {
			return answers[i]
		}
	}
	return Answer{Kind: Accepted}
}

// judgeBlocked judges a key whose project or API is refused, rather than the key itself. That is worse than the key in
// force, unless that one gets the same answer.
func (g *Gate) judgeBlocked(ctx context.Context, c turn.Candidate, v *turn.Verdict, answer Answer) {
	if !c.InForce.IsZero() && !c.RefusedBefore {
		v.Calls++
		if inForce := g.prober.Probe(ctx, c.InForce); inForce.Kind == Blocked && inForce.Reason == answer.Reason {
			v.Unproven = "the key in force gets the same answer: " + answer.Reason
			return
		}
	}
	v.Held = "Gemini refuses the key's project or API: " + answer.Reason
}

// malformed says what is wrong with b, never quoting it; "" if nothing is. A key goes into a header, so it is visible ASCII;
// other secrets may have any letters.
func malformed(b []byte, isKey bool) string {
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
		if isKey && (c == ' ' || c > 0x7f) {
			return "the value has a space or a letter that no API key has: write the key alone"
		}
	}
	return ""
}
