package geminitest

import (
	"maps"
	"slices"
	"time"
)

// maxRequests bounds the memory of [Server.Requests]: some 10 MB.
const maxRequests = 1 << 16

// Request is one request that has been answered. It names the key by its ordinal, never by its bytes.
type Request struct {
	Arrived  time.Time
	Key      int    // ordinal; 0 if the key is unknown or the request never came to it
	Method   string // generateContent, streamGenerateContent, countTokens, models, or empty for another path
	Status   int
	Refused  Case   // why the key was refused; empty if it was accepted
	Prompt   string // at most its first 64 bytes
	Complete bool   // the answer was sent to its end, and is a success; a stream has had its finishReason
}

// Count is what requests are counted by.
type Count struct {
	Key      int
	Method   string
	Status   int
	Complete bool
}

type record struct {
	counts   map[Count]int
	requests []Request // a ring once it is full
	next     int       // the oldest one in a full ring
	running  int
	inURLs   int
	observe  func(Request)
}

func (r *record) add(q Request) {
	if r.observe != nil {
		r.observe(q)
	}
	r.counts[Count{q.Key, q.Method, q.Status, q.Complete}]++
	if len(r.requests) < maxRequests {
		r.requests = append(r.requests, q)
		return
	}
	r.requests[r.next] = q
	r.next = (r.next + 1) % maxRequests
}

// Requests returns the requests that have been answered, in the order in which their answers ended: the last 65,536.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Concat(s.record.requests[s.record.next:], s.record.requests[:s.record.next])
}

// Observe has f called with each request from now on, as its answer ends and before it is recorded; nil ends that. f is
// called with the server locked: it must be quick, and must not call the server.
func (s *Server) Observe(f func(Request)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.record.observe = f
}

// Counts returns how many requests have been answered, by key and outcome: all of them since the start.
func (s *Server) Counts() map[Count]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.record.counts)
}

// Served returns how many requests the key with this ordinal has answered successfully and to the end.
func (s *Server) Served(ordinal int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	total := 0
	for c, n := range s.record.counts {
		if c.Key == ordinal && c.Complete {
			total += n
		}
	}
	return total
}

// Running returns how many requests are being answered now.
func (s *Server) Running() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.running
}

// KeysInURLs returns how many requests had a key in their URL, where proxies and logs keep it.
func (s *Server) KeysInURLs() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.record.inURLs
}
