// Package logtest has a log for tests to read while it is written.
package logtest

import (
	"bytes"
	"sync"
)

// Page collects what is written to it. The zero value is empty, and ready. It is safe for concurrent use.
type Page struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (p *Page) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.Write(b)
}

// String returns what has been written so far.
func (p *Page) String() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

// Take returns what has been written so far, and forgets it.
func (p *Page) Take() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.text.Reset()
	return p.text.String()
}
