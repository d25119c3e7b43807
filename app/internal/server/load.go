package server

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"golang.org/x/sync/semaphore"
)

// inFlight bounds what the calls that run weigh together, in bytes; a call that would be too much is refused. The unit is a
// byte of a prompt: while Gemini thinks about it some 4 bytes are resident with generative-ai-go and 5.5 with genai, which
// hold it twice or more, and as much garbage. So 12 MiB cost up to 66 MiB. With the 18 of an app at rest that is less than the
// 128 that docker-compose.yml and examples/kubernetes allow.
const inFlight = 12 << 20

// callWeight is what a call weighs beside its prompt: with its goroutines and its two connections it takes some 50 KiB. So
// there are at most 1024 calls.
const callWeight = 12 << 10

// load is what a call weighs.
type load struct {
	all  *semaphore.Weighted
	held int64
}

// take adds n and reports whether there was room for it. If there was none the call weighs nothing any more: those
// that arrive together would all be refused.
func (l *load) take(n int64) bool {
	if !l.all.TryAcquire(n) {
		l.release()
		return false
	}
	l.held += n
	return true
}

func (l *load) release() {
	l.all.Release(l.held)
	l.held = 0
}

// weighed is a body that weighs what has been read of it: what is announced and doesn't come keeps nobody out.
type weighed struct {
	io.Reader
	load *load
}

var errNoRoom = errors.New("there is no room for the body")

// Read implements io.Reader. It returns errNoRoom if there is none for what it read.
func (w weighed) Read(p []byte) (int, error) {
	n, err := w.Reader.Read(p)
	if !w.load.take(int64(n)) {
		return 0, errNoRoom
	}
	return n, err
}

// growth is by how many bytes a prompt grows when it is written as JSON in the way of encoding/json, as genai does.
func growth(prompt string) int64 {
	return 5 * int64(strings.Count(prompt, "<")+strings.Count(prompt, ">")+strings.Count(prompt, "&"))
}

// overloaded is the problem that as many run as can.
func overloaded(asMany string) *Problem {
	return problem(overload, http.StatusServiceUnavailable, asMany+" as this instance has memory for; ask again, or another", time.Second)
}
