package lagtest

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestTimeThatPassesByBeatsIsCountedInFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := Start(t)
		time.Sleep(1234 * time.Millisecond)
		if took := s.Took(); took != 1234*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestAPauseOfTheMachineCountsAsOneBeat(t *testing.T) {
	for gap, want := range map[time.Duration]time.Duration{0: 0, beat: beat, 2 * beat: 2 * beat, 2*beat + 1: beat, time.Second: beat} {
		if got := counts(gap); got != want {
			t.Errorf("%v between two beats count as %v, want %v", gap, got, want)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		s := Start(t)
		s.last = s.last.Add(-time.Hour)
		if took := s.Took(); took != beat {
			t.Errorf("an hour without a beat took %v", took)
		}
	})
}
