package gate

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// oracle is a Prober whose answers are dictated: for each key in turn, the last one for good. A key that it doesn't know
// must not be asked about.
type oracle struct {
	t       *testing.T
	mu      sync.Mutex
	answers map[string][]Answer
	asked   map[string]int
	slow    time.Duration
}

func (o *oracle) Probe(ctx context.Context, key secret.Value) Answer {
	o.mu.Lock()
	name := string(key.Reveal())
	script, known := o.answers[name]
	if !known {
		o.t.Errorf("Gemini was asked about %q", name)
	}
	o.asked[name]++
	answer := Answer{Kind: Accepted}
	if len(script) > 0 {
		answer = script[0]
	}
	if len(script) > 1 {
		o.answers[name] = script[1:]
	}
	o.mu.Unlock()
	if o.slow > 0 {
		select {
		case <-time.After(o.slow):
		case <-ctx.Done():
			return Answer{Kind: Unknown, Reason: "no answer in time"}
		}
	}
	return answer
}

func newOracle(t *testing.T, answers map[string][]Answer) *oracle {
	return &oracle{t: t, answers: answers, asked: map[string]int{}}
}

const file = "gemini-api-key"

func candidate(value, inForce string) turn.Candidate {
	c := turn.Candidate{File: file, Value: secret.New([]byte(value))}
	if inForce != "" {
		c.InForce = secret.New([]byte(inForce))
	}
	return c
}

var (
	yes    = Answer{Kind: Accepted}
	no     = Answer{Kind: Refused, Reason: "HTTP 400 API_KEY_INVALID"}
	off    = Answer{Kind: Blocked, Reason: "HTTP 403 SERVICE_DISABLED"}
	banned = Answer{Kind: Blocked, Reason: "HTTP 403"}
	away   = Answer{Kind: Unknown, Reason: "HTTP 503", RetryAfter: 7 * time.Second}
)

func TestWhatIsMalformedIsHeldWithoutAskingAnybody(t *testing.T) {
	g := New(newOracle(t, nil), file)
	for value, want := range map[string]string{
		"":                                 "empty",
		"key\n":                            "newline",
		"ke\x00y":                          "control character",
		"ke\x7fy":                          "control character",
		"two words":                        "space",
		"kéy":                              "letter",
		strings.Repeat("k", MaxSize+1):     "longer than 4 KiB",
		"\nkey":                            "control character",
		"bearer\tkey":                      "control character",
		strings.Repeat("k", MaxSize) + " ": "longer",
	} {
		v := g.Judge(t.Context(), candidate(value, "old"))
		if !strings.Contains(v.Held, want) || v.Retry || v.Refused || v.Calls != 0 {
			t.Errorf("%.20q: %+v, want it held for %q, until the store says something else", value, v, want)
		}
	}
}

func TestOnlyTheNamedFilesAreEverSentToGemini(t *testing.T) {
	g := New(newOracle(t, nil), file)
	c := candidate("pässword with spaces", "")
	c.File = "database-password"
	if v := g.Judge(t.Context(), c); v != (turn.Verdict{}) {
		t.Errorf("%+v", v)
	}
	if refused, known := g.Refused(t.Context(), c.File, c.Value); refused || known {
		t.Error("something is said about a secret that nobody may be asked about")
	}
	off := New(newOracle(t, nil))
	if v := off.Judge(t.Context(), candidate("key", "")); v != (turn.Verdict{}) {
		t.Errorf("switched off: %+v", v)
	}
}

func TestANewKeyIsProvenSeveralTimesOverConnectionsOfItsOwn(t *testing.T) {
	o := newOracle(t, map[string][]Answer{"new": {yes}})
	if v := New(o, file).Judge(t.Context(), candidate("new", "old")); v.Held != "" || v.Unproven != "" {
		t.Errorf("%+v", v)
	}
	if o.asked["new"] != proofs {
		t.Errorf("asked %d times", o.asked["new"])
	}
}

func TestOneProofIsEnoughWhileTheKeyInForceIsRefused(t *testing.T) {
	o := newOracle(t, map[string][]Answer{"new": {yes}})
	known := candidate("new", "old")
	known.Known = true
	if v := New(o, file).Judge(t.Context(), known); v.Held != "" || o.asked["new"] != 1 {
		t.Errorf("known to be refused: %+v after %d probes", v, o.asked["new"])
	}
	o = newOracle(t, map[string][]Answer{"new": {yes}, "old": {no}})
	claimed := candidate("new", "old")
	claimed.Claimed = true
	if v := New(o, file).Judge(t.Context(), claimed); v.Held != "" || !v.InForceRefused || o.asked["new"] != 1 || o.asked["old"] != 1 {
		t.Errorf("said to be refused, and it is: %+v, probes %v", v, o.asked)
	}
	o = newOracle(t, map[string][]Answer{"new": {yes}, "old": {yes}})
	if v := New(o, file).Judge(t.Context(), claimed); v.Held != "" || v.InForceRefused || o.asked["new"] != proofs || o.asked["old"] != 1 {
		t.Errorf("said to be refused, and it isn't: %+v, probes %v", v, o.asked)
	}
}

func TestARefusedKeyIsHeldAndJudgedAgain(t *testing.T) {
	o := newOracle(t, map[string][]Answer{"new": {no}})
	v := New(o, file).Judge(t.Context(), candidate("new", "old"))
	if !v.Refused || !v.Retry || !strings.Contains(v.Held, "API_KEY_INVALID") || v.Calls != 1 {
		t.Errorf("%+v", v)
	}
	o = newOracle(t, map[string][]Answer{"new": {yes, no, yes}})
	v = New(o, file).Judge(t.Context(), candidate("new", "old"))
	if !v.Refused || !strings.Contains(v.Held, "not all of its front ends") || v.Calls != proofs {
		t.Errorf("some front ends don't know it yet: %+v", v)
	}
}

func TestSilenceSaysNothingOfAKeyUnlessItWasRefusedBefore(t *testing.T) {
	o := newOracle(t, map[string][]Answer{"new": {away}})
	if v := New(o, file).Judge(t.Context(), candidate("new", "old")); v.Held != "" || !strings.Contains(v.Unproven, "HTTP 503") {
		t.Errorf("never refused: %+v", v)
	}
	before := candidate("new", "old")
	before.RefusedBefore = true
	v := New(newOracle(t, map[string][]Answer{"new": {away}}), file).Judge(t.Context(), before)
	if v.Held == "" || v.Refused || !v.Retry || v.RetryAfter != 7*time.Second {
		t.Errorf("refused before: %+v", v)
	}
}

func TestABlockedProjectHoldsAKeyUnlessTheOneInForceIsBlockedAlike(t *testing.T) {
	for _, test := range []struct {
		name     string
		inForce  string
		answer   []Answer
		unproven bool
	}{
		{"in force works", "old", []Answer{yes}, false},
		{"in force is blocked alike", "old", []Answer{off}, true},
		{"in force is blocked for another reason", "old", []Answer{banned}, false},
		{"in force can't be asked about", "old", []Answer{away}, false},
		{"nothing is in force", "", nil, false},
	} {
		o := newOracle(t, map[string][]Answer{"new": {off}, "old": test.answer})
		v := New(o, file).Judge(t.Context(), candidate("new", test.inForce))
		if (v.Unproven != "") != test.unproven || (v.Held == "") != test.unproven || v.Refused {
			t.Errorf("%s: %+v", test.name, v)
		}
	}
}

func TestAClaimIsCheckedWithOneCall(t *testing.T) {
	for _, test := range []struct {
		answer         Answer
		refused, known bool
	}{{no, true, true}, {yes, false, true}, {away, false, false}, {off, false, false}} {
		o := newOracle(t, map[string][]Answer{"old": {test.answer}})
		refused, known := New(o, file).Refused(t.Context(), file, secret.New([]byte("old")))
		if refused != test.refused || known != test.known || o.asked["old"] != 1 {
			t.Errorf("%+v: refused %v, known %v, after %d calls", test.answer, refused, known, o.asked["old"])
		}
	}
}

// Requests wait two seconds for a better key: a front end that hangs must not use them up.
func TestWhileRequestsWaitAProofTakesNoLongerThanTheyDo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOracle(t, map[string][]Answer{"new": {yes}, "old": {no}})
		o.slow = time.Minute
		c := candidate("new", "old")
		c.Claimed = true
		began := time.Now()
		v := New(o, file).Judge(t.Context(), c)
		if took := time.Since(began); took != urgent || v.Unproven == "" {
			t.Errorf("%+v after %v", v, took)
		}
		o.slow = time.Second
		o.answers["new"], o.answers["old"] = []Answer{yes}, []Answer{no}
		began = time.Now()
		v = New(o, file).Judge(t.Context(), c)
		if took := time.Since(began); took != time.Second || v.Held != "" || v.Unproven != "" {
			t.Errorf("the candidate and the key in force are asked about one after the other: %+v after %v", v, took)
		}
	})
}
