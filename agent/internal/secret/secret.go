// Package secret holds what the agent carries from a store to a file: a value that prints nowhere, the version that the
// store gave it, the reference by which a person names it, and the identity of the file that it was rendered to.
package secret

import (
	"bytes"
	"fmt"
	"io"
	"log/slog"
)

// redacted is all that a Value ever prints.
const redacted = "[redacted]"

// Value is an immutable secret. The zero Value holds nothing.
//
// Format, MarshalText and LogValue answer "[redacted]", and its bytes sit in a closure, where package fmt can't follow
// even from an unexported field of somebody's struct (behind a plain pointer it can: try %s). Reveal is the one way out.
//
// A Value may be copied and used concurrently; all copies share the same bytes. Only Clear is not safe beside other calls.
type Value struct {
	bytes    func() *[]byte
	giveBack func() // its place to the Memory that keeps it; nil for ordinary memory
}

// New copies b into a new Value. The caller keeps b and may clear it.
func New(b []byte) Value {
	held := append([]byte{}, b...)
	return Value{bytes: func() *[]byte { return &held }}
}

// Reveal returns the secret itself. The bytes belong to the Value: read them, don't change or keep them.
func (v Value) Reveal() []byte {
	if v.bytes == nil {
		return nil
	}
	return *v.bytes()
}

// IsZero reports whether v was never given a secret, or has been cleared. An empty secret is not zero.
func (v Value) IsZero() bool { return v.Reveal() == nil }

// Equal reports whether v and w hold the same bytes.
func (v Value) Equal(w Value) bool {
	return v.IsZero() == w.IsZero() && bytes.Equal(v.Reveal(), w.Reveal())
}

// Clear overwrites the bytes that v and all its copies share; they are zero Values afterwards.
func (v Value) Clear() {
	if v.IsZero() {
		return
	}
	clear(*v.bytes())
	*v.bytes() = nil
	if v.giveBack != nil {
		v.giveBack()
	}
}

// Format implements fmt.Formatter for every verb.
func (v Value) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue implements slog.LogValuer.
func (v Value) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, which encoding/json uses as well.
func (v Value) MarshalText() ([]byte, error) { return []byte(redacted), nil }
