package server

import (
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

// take adds n, or what is left of inFlight for one call, and reports whether there was room for it.
func (l *load) take(n int64) bool {
	n = min(n, inFlight-l.held) // the largest must be possible, alone
	if !l.all.TryAcquire(n) {
		return false
	}
	l.held += n
	return true
}

func (l *load) release() { l.all.Release(l.held) }

// growth is by how many bytes a prompt grows when it is written as JSON in the way of encoding/json, as genai does.
func growth(prompt string) int64 {
	return 5 * int64(strings.Count(prompt, "<")+strings.Count(prompt, ">")+strings.Count(prompt, "&"))
}

// overloaded is the problem that as many run as can.
func overloaded(asMany string) *Problem {
	return problem(overload, http.StatusServiceUnavailable, asMany+" as this instance has memory for; ask again, or another", time.Second)
}
