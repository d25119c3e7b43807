package main

import (
	"fmt"
	"io"
)

// progress tells a person at a terminal how far the work is, in one line that changes, and a log what was begun and done.
type progress struct {
	w        io.Writer
	terminal bool
	stepping bool // the cursor is behind a step
}

// clearLine takes the cursor to the beginning of its line and clears that.
const clearLine = "\r\x1b[K"

// say prints a line that stays.
func (p *progress) say(format string, args ...any) {
	p.end()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// step replaces the last step. Only a terminal shows it.
func (p *progress) step(format string, args ...any) {
	if p.terminal {
		fmt.Fprintf(p.w, clearLine+format, args...)
		p.stepping = true
	}
}

// end clears the last step.
func (p *progress) end() {
	if p.stepping {
		fmt.Fprint(p.w, clearLine)
		p.stepping = false
	}
}
