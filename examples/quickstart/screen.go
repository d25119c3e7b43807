package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"golang.org/x/term"
)

// screen writes lines that stay and, on a terminal, a last line that changes. In a pipe there are only the lines, without
// control codes. It is used by one goroutine at a time.
type screen struct {
	w      io.Writer
	live   bool // a terminal
	colour bool
	width  func() int
	status bool // there is a status line
	gone   func()
}

// newScreen returns a screen on w. It calls gone when w takes no more.
func newScreen(w io.Writer, gone func()) *screen {
	s := &screen{w: w, gone: gone, width: func() int { return 80 }}
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("TERM") == "dumb" {
		return s
	}
	s.live, s.colour = true, os.Getenv("NO_COLOR") == "" // no-color.org
	s.width = func() int {
		if width, _, err := term.GetSize(int(file.Fd())); err == nil && width > 0 {
			return width
		}
		return 80
	}
	return s
}

// Write writes lines above the status line.
func (s *screen) Write(b []byte) (int, error) {
	s.clear()
	n, err := s.w.Write(b)
	if err != nil {
		s.gone()
	}
	return n, err
}

// Say writes one line above the status line.
func (s *screen) Say(format string, args ...any) { fmt.Fprintf(s, format+"\n", args...) }

// Status changes the status line, if there can be one. It is cut to the terminal's width; styled text has no styles inside.
func (s *screen) Status(parts ...styled) {
	if !s.live {
		return
	}
	var b strings.Builder
	room := s.width() - 1
	for _, p := range parts {
		text := p.text
		if n := utf8.RuneCountInString(text); n > room {
			text = string([]rune(text)[:room])
		}
		room -= utf8.RuneCountInString(text)
		b.WriteString(s.style(p.style, text))
	}
	fmt.Fprintf(s.w, "\r%s\x1b[K", b.String())
	s.status = true
}

// clear takes the status line away.
func (s *screen) clear() {
	if s.status {
		io.WriteString(s.w, "\r\x1b[K")
		s.status = false
	}
}

// style is a text's look, as an SGR parameter (ECMA-48, 8.3.117).
type style string

// Styles.
const (
	plain  style = ""
	bold   style = "1"
	faint  style = "2"
	red    style = "31"
	green  style = "32"
	yellow style = "33"
	blue   style = "34"
	cyan   style = "36"
)

type styled struct {
	style style
	text  string
}

// style returns text in a style, where there are any.
func (s *screen) style(st style, text string) string {
	if !s.colour || st == plain || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}
