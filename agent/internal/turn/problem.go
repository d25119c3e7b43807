package turn

import (
	"github.com/keyturn/keyturn/agent/internal/source"
)

// Kinds of problems that no store has.
const (
	// KindHeld: the gate holds the store's newest value.
	KindHeld source.Kind = "held"
	// KindRender: the sink can't write.
	KindRender source.Kind = "render"
)

// problem is why a file waits or is stale; the zero problem is none.
type problem struct {
	kind   source.Kind
	reason string
}

func problemOf(err error) problem {
	p := problem{kindOf(err), err.Error()}
	if e, ok := asSourceError(err); ok {
		p.reason = e.Reason
	}
	return p
}

// step is where a problem arises. The first that has one is what Status tells.
type step int

const (
	mending step = iota
	rendering
	reading // the path
	finding // the field in what was read
	judging
	steps
)

// problems holds what is wrong at each step, so that two steps that fail don't replace each other's problem in turn.
type problems struct {
	at   [steps]problem
	said map[problem]bool // what was logged since all was well
}

// maxSaid bounds how many reasons of one kind are logged, and remembered, until all is well again.
const maxSaid = 16

// first returns the problem to tell, or the zero one.
func (p *problems) first() problem {
	for _, found := range p.at {
		if found != (problem{}) {
			return found
		}
	}
	return problem{}
}

// set notes a problem, or with the zero one that a step has none, and reports whether that is worth a line: another kind of
// problem, a reason that is heard for the first time, or all being well again.
func (p *problems) set(at step, now problem) (worthALine bool) {
	before := p.at[at]
	p.at[at] = now
	switch {
	case now == before:
		return false
	case now == problem{}:
		if p.first() != (problem{}) {
			return false
		}
		said := p.said != nil
		p.said = nil
		return said
	case now.kind == before.kind && (p.said[now] || len(p.said) == maxSaid):
		return false
	}
	if p.said == nil {
		p.said = map[problem]bool{}
	}
	if len(p.said) < maxSaid {
		p.said[now] = true
	}
	return true
}

// share notes a problem that all files have, and that one line has told for all of them.
func (f *file) share(at step, p problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.problems.at[at] = p
}

// trouble notes what is wrong at a step, or with the zero problem that nothing is, and logs the change.
func (f *file) trouble(at step, p problem) {
	f.mu.Lock()
	worthALine := f.problems.set(at, p)
	rendered := f.status.Rendered
	f.mu.Unlock()
	switch {
	case !worthALine:
	case p == problem{}:
		f.log.Info("in step with the store again")
	case rendered:
		f.log.Warn("the last good value stays in force", "kind", p.kind, "reason", p.reason)
	default:
		f.log.Warn("not rendered yet", "kind", p.kind, "reason", p.reason)
	}
}
