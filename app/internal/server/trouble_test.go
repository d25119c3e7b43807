package server_test

import (
	"context"
	"iter"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/gemini"
)

var (
	notSetUp = &gemini.Error{Fault: gemini.FaultConfig, Status: 403, Reason: "SERVICE_DISABLED", Message: "Enable it in project 123."}
	notThere = &gemini.Error{Fault: gemini.FaultUnavailable, Message: "lookup gemini.test on 10.255.255.53:53: no such host"}
	blocked  = &gemini.Error{Fault: gemini.FaultRequest, Status: 200, Reason: "SAFETY"}
)

// said is what a log holds: the level and the message of each line.
func (p *page) said() []string {
	var lines []string
	for _, m := range regexp.MustCompile(`level=(\w+) msg="([^"]+)"`).FindAllStringSubmatch(p.String(), -1) {
		lines = append(lines, m[1]+" "+m[2])
	}
	return lines
}

// A caller can't set up the API, and is no reader of this network's names; whoever can and is reads the log.
func TestTheLogSaysThatAPersonIsNeededAndWhenNoMore(t *testing.T) {
	for _, test := range []struct {
		err        *gemini.Error
		begin, end string
	}{
		{notSetUp, "ERROR Gemini is not set up for this; a person is needed", `after=configuration failures=60 lasted=1m58s`},
		{notThere, "WARN Gemini is unavailable", `after=unavailable failures=60 lasted=1m58s`},
	} {
		for _, path := range []string{"/v1/generate", "/v1/stream"} {
			synctest.Test(t, func(t *testing.T) {
				var err error
				c := &fake{
					generate: func(context.Context, string) (client.Answer, error) { return client.Answer{}, err },
					stream:   func(context.Context, string) iter.Seq2[client.Answer, error] { return pieces(err, "Bl") },
				}
				var log page
				url, _, _ := serveInBubble(t, c, logTo(&log))
				post(t, url+path, question)
				err = test.err
				for range 60 {
					if a := post(t, url+path, question); strings.Contains(a.body, test.err.Message) || !strings.Contains(a.body, "the app's log") {
						t.Errorf("the caller is told %s", a.body)
					}
					time.Sleep(2 * time.Second)
				}
				if said := log.said(); !slices.Equal(said, []string{test.begin}) || !strings.Contains(log.String(), test.err.Message) {
					t.Errorf("while it lasts: %s", log.String())
				}
				err = blocked
				time.Sleep(time.Minute)
				post(t, url+path, question)
				if said := log.said(); len(said) != 1 {
					t.Errorf("an answer that isn't good: %q", said)
				}
				err = nil
				for range 10 {
					post(t, url+path, question)
				}
				if said := log.said(); !slices.Equal(said, []string{test.begin, "INFO Gemini answers again"}) || !strings.Contains(log.String(), test.end) {
					t.Errorf("when it is over: %s", log.String())
				}
			})
		}
	}
}

func TestGoodAndBadAnswersInTurnAreOneTrouble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := 0
		errs := []error{nil, notThere, nil, notSetUp, blocked, notThere, nil}
		c := &fake{generate: func(context.Context, string) (client.Answer, error) {
			n++
			return client.Answer{}, errs[n%len(errs)]
		}}
		var log page
		url, _, _ := serveInBubble(t, c, logTo(&log))
		lines := func(pause time.Duration) int {
			before := len(log.said())
			for range 700 {
				post(t, url+"/v1/generate", question)
				time.Sleep(pause)
			}
			return len(log.said()) - before
		}
		if n := lines(time.Second); n != 2 {
			t.Errorf("in twelve minutes without a quiet one: %q", log.said())
		}
		if n := lines(31 * time.Second); n < 390 || n > 410 {
			t.Errorf("after a minute that is quiet it is over: of 200 troubles there are %d lines", n)
		}
	})
}

// One overload, and then only calls without a name for the host: the log told only of the overload.
func TestTheLogSaysWhenAnotherReasonHasTakenOver(t *testing.T) {
	overloaded := &gemini.Error{Fault: gemini.FaultUnavailable, Status: 503, Message: "The model is overloaded."}
	for _, test := range []struct {
		name    string
		reasons []*gemini.Error // in turn, but the last goes on
		want    int             // lines in ten minutes with a call a second
	}{
		{"one for all", []*gemini.Error{notThere}, 1},
		{"one after another", []*gemini.Error{overloaded, notThere}, 2},
		{"another for a moment", []*gemini.Error{notThere, overloaded, notThere}, 1},
		{"in turn", slices.Repeat([]*gemini.Error{overloaded, notThere}, 300), 10},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := 0
				c := &fake{generate: func(context.Context, string) (client.Answer, error) {
					n++
					return client.Answer{}, test.reasons[min(n, len(test.reasons))-1]
				}}
				var log page
				url, _, _ := serveInBubble(t, c, logTo(&log))
				for range 600 {
					post(t, url+"/v1/generate", question)
					time.Sleep(time.Second)
				}
				lines := slices.Collect(strings.Lines(log.String()))
				if last := lines[len(lines)-1]; len(lines) != test.want || !strings.Contains(last, notThere.Message) {
					t.Errorf("%d lines, want %d; the last is %s", len(lines), test.want, last)
				}
			})
		})
	}
}
