// Package gate decides whether a value that a store holds may be published.
package gate

import (
	"context"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// MaxSize is the most bytes that a rendered file may hold. The app refuses larger ones too.
const MaxSize = 4 << 10

// Gate is a turn.Gate. The zero Gate is ready to use, and safe for concurrent use.
type Gate struct{}

// Judge implements turn.Gate: it holds a value that is not well-formed.
func (Gate) Judge(_ context.Context, _ string, v, _ secret.Value) turn.Verdict {
	return turn.Verdict{Held: malformed(v.Reveal())}
}

// malformed says what is wrong with b, never quoting it; "" if nothing is.
func malformed(b []byte) string {
	switch {
	case len(b) == 0:
		return "the value is empty: write one to the store"
	case len(b) > MaxSize:
		return "the value is longer than 4 KiB: this is no key, name another field"
	case b[len(b)-1] == '\n':
		return "the value ends with a newline: write it without (printf %s, or echo -n)"
	}
	for _, c := range b {
		if c < ' ' || c == 0x7f {
			return "the value has a control character: write it without"
		}
	}
	return ""
}
