package keyfile

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// MaxSize is the most bytes that a key may have.
const MaxSize = 4 << 10

// redacted is all that a Key ever prints.
const redacted = "[redacted]"

// Key is an immutable API key that a header may carry. The zero Key is none.
//
// Format, MarshalText and LogValue answer "[redacted]", and the key sits in a closure, where package fmt can't follow even
// from an unexported field of somebody's struct. Reveal is the one way out. A Key may be copied and used concurrently.
type Key struct {
	reveal func() string
}

// Reasons why bytes are no key. NewKey returns them as they are.
var (
	ErrEmpty    = errors.New("it is empty: write the key into it")
	ErrTooLong  = errors.New("it is longer than 4 KiB, so it holds no key: write the key alone")
	ErrNewline  = errors.New("it ends with a newline: write the key without one (printf %s, or echo -n)")
	ErrNoHeader = errors.New("it holds a space, a control character or another byte that no header may carry: write the key alone")
)

// NewKey copies b, which the caller keeps and may clear. Visible ASCII alone makes a key: any other byte is refused by
// net/http, or means another header to somebody on the way (RFC 9110, section 5.5). The error says why b is no key.
func NewKey(b []byte) (Key, error) {
	switch {
	case len(b) == 0:
		return Key{}, ErrEmpty
	case len(b) > MaxSize:
		return Key{}, ErrTooLong
	case b[len(b)-1] == '\n':
		return Key{}, ErrNewline
	}
	for _, c := range b {
		if c <= ' ' || c >= 0x7f {
			return Key{}, ErrNoHeader
		}
	}
	key := string(b)
	return Key{func() string { return key }}, nil
}

// Reveal returns the key itself; "" for the zero Key.
func (k Key) Reveal() string {
	if k.reveal == nil {
		return ""
	}
	return k.reveal()
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.reveal == nil }

// Equal reports whether k and other are the same key.
func (k Key) Equal(other Key) bool { return k.Reveal() == other.Reveal() }

// Format implements fmt.Formatter for every verb.
func (k Key) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (k Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, which encoding/json uses as well.
func (k Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }
