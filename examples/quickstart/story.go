package main

import (
	"fmt"
	"time"

	"github.com/keyturn/keyturn/examples/quickstart/internal/drill"
	"github.com/keyturn/keyturn/examples/quickstart/internal/report"
)

// story tells a run as it goes.
type story struct {
	screen *screen
	strip  []styled     // the last answers, a cell for each tick
	before drill.Moment // the rotation before
	last   drill.Moment // the tick before
}

func (t *story) watch(m drill.Moment) {
	s := t.screen
	switch m.Kind {
	case drill.InUse:
		s.Say("  %4.1f s  rotation %d  generation %d > %d  in use %s after the write%s", m.Elapsed.Seconds(), m.Rotation,
			m.Generation-1, m.Generation, s.style(bold, milliseconds(m.Swap)), t.rescues(m))
		t.before = m
	case drill.Tick:
		t.draw(m)
	}
}

// rescues says how many requests were rescued since the rotation before.
func (t *story) rescues(m drill.Moment) string {
	switch n := m.Rescued - t.before.Rescued; n {
	case 0:
		return ""
	case 1:
		return "  1 request rescued"
	default:
		return fmt.Sprintf("  %d requests rescued", n)
	}
}

// draw shows the last seconds as a strip: a cell a tick, in the colour of the generation that answered.
func (t *story) draw(m drill.Moment) {
	last := t.last
	cell := styled{[]style{blue, cyan}[m.Generation%2], "▪"}
	switch {
	case m.Failed > last.Failed:
		cell = styled{red, "✗"}
	case m.Rescued > last.Rescued:
		cell.style = yellow
	case m.Answered == last.Answered:
		cell = styled{faint, "·"}
	}
	t.last = m
	t.strip = append(t.strip, cell)
	t.strip = t.strip[max(0, len(t.strip)-stripCells):]
	parts := []styled{{faint, fmt.Sprintf("  %4.1f s  ", m.Elapsed.Seconds())}}
	parts = append(parts, t.strip...)
	parts = append(parts, styled{plain, fmt.Sprintf("  generation %d answers  %d answered", m.Generation, m.Answered)})
	failed := styled{faint, ", 0 failed"}
	if m.Failed > 0 {
		failed = styled{red, fmt.Sprintf(", %d failed", m.Failed)}
	}
	t.screen.Status(append(parts, failed)...)
}

const stripCells = 30

func milliseconds(d time.Duration) string { return fmt.Sprintf("%.1f ms", report.Milliseconds(d)) }
