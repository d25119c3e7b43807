package geminitest

import (
	"net/http"
	"testing"
)

func TestAnObserverSeesEachRequestUntilThereIsNone(t *testing.T) {
	s := New()
	s.Add("good")
	var seen []Request
	s.Observe(func(q Request) { seen = append(seen, q) })
	generate(s, "good")
	generate(s, "bad")
	s.Observe(nil)
	generate(s, "good")
	if len(seen) != 2 || seen[0].Status != http.StatusOK || seen[0].Prompt != asked || seen[1].Refused != Invalid {
		t.Errorf("it saw %+v", seen)
	}
	if recorded := s.Requests(); len(recorded) != 3 || recorded[1] != seen[1] {
		t.Errorf("the record has %+v", recorded)
	}
}
