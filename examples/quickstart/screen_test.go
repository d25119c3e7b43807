package main

import (
	"bytes"
	"strings"
	"testing"
)

func terminal(w *bytes.Buffer, width int) *screen {
	return &screen{w: w, live: true, colour: true, width: func() int { return width }}
}

func TestAPipeGetsPlainLinesAndNoControlCodes(t *testing.T) {
	var b bytes.Buffer
	s := newScreen(&b, func() {})
	s.Say("%s one", s.style(bold, "line"))
	s.Status(styled{red, "a status"})
	s.Say("line two")
	if got := b.String(); got != "line one\nline two\n" {
		t.Errorf("the pipe got %q", got)
	}
}

func TestATerminalKeepsTheStatusBelowTheLines(t *testing.T) {
	var b bytes.Buffer
	s := terminal(&b, 80)
	s.Status(styled{plain, "first "}, styled{red, "status"})
	s.Say("a line")
	s.Status(styled{plain, "second"})
	s.clear()
	const clear = "\r\x1b[K"
	want := "\rfirst \x1b[31mstatus\x1b[0m\x1b[K" + clear + "a line\n" + "\rsecond\x1b[K" + clear
	if got := b.String(); got != want {
		t.Errorf("the terminal got %q, want %q", got, want)
	}
}

func TestAStatusNeverWraps(t *testing.T) {
	for width := 1; width < 20; width++ {
		var b bytes.Buffer
		s := terminal(&b, width)
		s.colour = false
		s.Status(styled{plain, "▪▪▪▪▪"}, styled{red, "▪▪▪▪▪"}, styled{plain, "▪▪▪▪▪"})
		if cells := strings.Count(b.String(), "▪"); cells != min(15, width-1) {
			t.Errorf("%d cells on a terminal of %d", cells, width)
		}
	}
}
