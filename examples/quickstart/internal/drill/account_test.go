package drill

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/examples/internal/load"
)

func TestTheFirstUseIsTheEarliestInWhateverOrderItIsNoted(t *testing.T) {
	u, start := newUses(), time.Now()
	if _, ok := u.first(2); ok {
		t.Error("a generation without a success has a first use")
	}
	u.note(2, start.Add(3*time.Second))
	u.note(2, start.Add(time.Second))
	u.note(2, start.Add(2*time.Second))
	if at, ok := u.first(2); !ok || !at.Equal(start.Add(time.Second)) {
		t.Errorf("the first use was after %v", at.Sub(start))
	}
}

func TestAwaitReturnsWithTheGenerationOrALaterOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := newUses()
		got := make(chan uint64)
		go func() {
			generation, err := u.await(t.Context(), 3)
			if err != nil {
				t.Error(err)
			}
			got <- generation
		}()
		u.note(2, time.Now())
		synctest.Wait()
		select {
		case generation := <-got:
			t.Fatalf("it returned with generation %d", generation)
		default:
		}
		u.note(4, time.Now())
		if generation := <-got; generation != 4 {
			t.Errorf("it returned with generation %d", generation)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := u.await(ctx, 5); err == nil {
			t.Error("it returned without a success")
		}
	})
}

func TestRefusalsAreJoinedWithRequestsByTheirPrompt(t *testing.T) {
	var r refusals
	r.note(geminitest.Request{Prompt: prompt(7), Refused: geminitest.Invalid})
	r.note(geminitest.Request{Prompt: prompt(7), Refused: geminitest.Invalid})
	r.note(geminitest.Request{Prompt: prompt(8)})
	r.note(geminitest.Request{Method: "models", Refused: geminitest.Expired})
	if r.of(7) != 2 || r.of(8) != 0 || len(r.byID) != 1 {
		t.Errorf("the refusals are %v", r.byID)
	}
}

func TestTheTallyCountsRescuedRequestsAmongTheAnswered(t *testing.T) {
	var c tally
	c.count(load.Record{Generation: 3}, false)
	c.count(load.Record{Generation: 2}, true)
	c.count(load.Record{Fault: "HTTP 503"}, true)
	if c.answered != 2 || c.rescued != 1 || c.failed != 1 || c.generation != 3 {
		t.Errorf("%d answered, %d rescued, %d failed, generation %d", c.answered, c.rescued, c.failed, c.generation)
	}
}

func TestRequestsAreSettledOnceEveryEarlierOneIs(t *testing.T) {
	var c tally
	for _, id := range []int{2, 0, 3} {
		c.count(load.Record{ID: id}, false)
	}
	if !c.settled(1) || c.settled(2) {
		t.Error("request 1 is out, and holds nobody up or the wrong ones")
	}
	c.count(load.Record{ID: 1, Fault: "HTTP 503"}, false)
	if !c.settled(4) || c.settled(5) || len(c.beyond) != 0 {
		t.Errorf("all four have an outcome, and it is known up to %d", c.upTo)
	}
}

// The prompt's number is in the part of it that the stand-in records.
func TestAStandInReportsTheWholePrompt(t *testing.T) {
	if n := len(prompt(1 << 40)); n > 64 {
		t.Errorf("the prompt has %d bytes, of which the stand-in records 64", n)
	}
}
