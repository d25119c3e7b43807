// Package slowtest is a client that says only what it is told to, for tests of how long a server waits for one.
package slowtest

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/pipetest"
)

// Dial connects and sends what a client would say first. The connection is closed with the test.
func Dial(t testing.TB, network, address, first string) net.Conn {
	t.Helper()
	c, err := pipetest.Dial(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, first); err != nil {
		t.Fatal(err)
	}
	return c
}

// IsCut reports whether the server closes c before that much time has passed, whatever it sends until then. It blocks for as
// long.
func IsCut(t testing.TB, c net.Conn, within time.Duration) bool {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(within)); errors.Is(err, io.ErrClosedPipe) {
		return true
	} else if err != nil {
		t.Fatal(err)
	}
	_, err := io.Copy(io.Discard, c)
	return err == nil || errors.Is(err, syscall.ECONNRESET)
}
