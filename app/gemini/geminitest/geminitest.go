// Package geminitest stands in for the Gemini API, in tests and in the demo: the same paths, the same order of checks,
// and the same error bodies, for keys that can be added, revoked, delayed, suspended and more while requests run.
//
//	api := geminitest.NewServer()
//	defer api.Close()
//	api.Add("first-key")
//	backend, err := gemini.New(ctx, gemini.Config{BaseURL: api.URL})
//
// A key is judged when its request arrives. What happens to the key later does not touch an answer that has begun: as at
// Google, a stream outlives its key.
//
// What it leaves out: models other than text, files, caches, the Live API, and quotas that it counts by itself.
package geminitest

import (
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Server is a stand-in. Its methods are safe for concurrent use, also while requests run.
type Server struct {
	URL string // http://127.0.0.1:port; empty for a server from [New]

	listening *http.Server
	done      chan struct{} // closed when listening has stopped

	mu      sync.Mutex
	keys    map[string]*key
	fail    []failure
	latency time.Duration
	stream  Stream
	verdict Verdict
	record  record
	conns   map[net.Conn]struct{}
	dialled int
}

// New returns a stand-in without a listener: serve its [Server.Handler].
func New() *Server {
	return &Server{
		keys:   make(map[string]*key),
		stream: Stream{Pieces: 3},
		record: record{counts: make(map[Count]int)},
		conns:  make(map[net.Conn]struct{}),
	}
}

// NewServer returns a stand-in that listens on a free port of 127.0.0.1. It panics if there is none. Close it.
func NewServer() *Server {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic("geminitest: listen on 127.0.0.1: " + err.Error())
	}
	s := New()
	s.URL = "http://" + listener.Addr().String()
	s.done = make(chan struct{})
	s.listening = &http.Server{Handler: s.Handler(), ConnState: s.connState, ReadHeaderTimeout: 10 * time.Second}
	go func() {
		defer close(s.done)
		_ = s.listening.Serve(listener) // always ErrServerClosed: nothing else closes the listener
	}()
	return s
}

// Close stops listening, breaks the connections that are open and waits for the listener's end.
func (s *Server) Close() {
	if s.listening == nil {
		return
	}
	s.listening.Close()
	<-s.done
}

// Handler returns the API, for a listener or a TLS server of the caller's own.
func (s *Server) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// Connections returns how many connections are open now and how many there have been. Only for [NewServer].
func (s *Server) Connections() (open, total int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns), s.dialled
}

func (s *Server) connState(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.conns[c] = struct{}{}
		s.dialled++
	case http.StateClosed, http.StateHijacked:
		delete(s.conns, c)
	}
}

// SetLatency makes every request wait for d before its answer begins. The key is judged before the wait.
func (s *Server) SetLatency(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.latency = d
}

// Stream says how streams that begin from now on are sent.
type Stream struct {
	Pieces   int           // how many pieces the answer is cut into; at least 1
	Interval time.Duration // the wait before each piece but the first
	End      End
	Case     Case // the error of [EndError]
}

// End is how a stream ends.
type End int

const (
	EndFinished   End = iota // the last piece has a finishReason
	EndError                 // after the pieces, an element with the error of Stream.Case
	EndUnfinished            // well-formed, but no piece has a finishReason
	EndCut                   // the connection breaks after the pieces
)

// SetStream changes how streams are sent. At first they have three pieces, no interval, and a finishReason.
func (s *Server) SetStream(stream Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	stream.Pieces = max(stream.Pieces, 1)
	s.stream = stream
}

// Verdict is how the model judges prompts and answers. The zero Verdict lets all of them pass.
type Verdict struct {
	BlockReason  string // such as PROHIBITED_CONTENT: the prompt is blocked, there is no candidate
	FinishReason string // such as SAFETY: the answer has no text and ends with this; empty means STOP
}

// SetVerdict changes the verdict on prompts that arrive from now on.
func (s *Server) SetVerdict(v Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verdict = v
}

type failure struct {
	status int
	header http.Header
	body   string
}

// Fail answers the next n requests with status, header and body, before their keys are looked at: what a front end or a
// proxy would do. header may be nil. Failures queue up behind earlier ones.
func (s *Server) Fail(n, status int, header http.Header, body string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.fail = append(s.fail, failure{status, header, body})
	}
}

// FailCase is [Server.Fail] with one of Google's own errors.
func (s *Server) FailCase(n int, c Case) {
	status, body := c.Response("")
	s.Fail(n, status, http.Header{"Content-Type": {contentType}}, string(body))
}

// retryAfter writes d as whole seconds, rounded up: zero would say "now".
func retryAfter(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Second-1)/time.Second), 10)
}
