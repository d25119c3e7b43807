// Package sourcetest is the conformance suite of package source: every driver passes it against its real store.
//
// Which kind of failure comes out:
//
//	nothing was ever at the path        NotFound
//	the newest version was deleted      NotFound
//	the permission was taken away       Denied
//	the store is down                   Unavailable
//	it is well, and fails at the path   Failed
//	the caller's context has ended      the context's own error, promptly
//	the field is missing                Invalid, for that field alone
//	the field is no string              Invalid, for that field alone
//	the field is above source.MaxValue  Invalid, for that field alone
//
// An empty value and one of any bytes are none of them: whether they may be published is the gate's matter.
package sourcetest

import (
	"testing"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
)

// Harness is one store with one driver, for one case. A method that can't do its work ends the test. Each returns once the
// store has taken the change in. Paths are as users write them.
type Harness interface {
	// Source returns the driver, always the same one, logged in or able to.
	Source() source.Source
	// Path returns the path that the case is about. Nothing is there yet.
	Path() string
	// Put makes fields, strings but for the cases that say so, the newest version at Path.
	Put(fields map[string]any)
	// Delete takes the newest version away, and Restore brings it back, by writing it again if need be.
	Delete()
	Restore()
	// Deny takes away the permission to read Path, and Allow gives it back. The driver's access itself stays.
	Deny()
	Allow()
	// Stop makes the store refuse connections, as a store that is down does, and Start ends that. It keeps its secrets.
	Stop()
	Start()
	// Hang makes the store take requests and not answer until Resume. Each waiting request is announced on the channel.
	Hang() (waiting <-chan struct{})
	Resume()
	// Versioned reports whether the store counts versions and says when they were made.
	Versioned() bool
}

// Breaker is a Harness that can make the store fail at Path alone, until Mend, while it answers for other paths.
type Breaker interface {
	Break()
	Mend()
}

// Run runs every case as a subtest against a harness of its own.
func Run(t *testing.T, open func(t *testing.T) Harness) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.run(t, open(t)) })
	}
}

// testCase takes a testing.TB, so that a test of the suite can look at a failure without failing.
type testCase struct {
	name string
	run  func(testing.TB, Harness)
}

const field = "api_key"

func put(h Harness, value string) { h.Put(map[string]any{field: value}) }

// fetch reads what must be there. The record is cleared with the test.
func fetch(t testing.TB, h Harness) *source.Record {
	t.Helper()
	record, err := h.Source().Fetch(t.Context(), h.Path())
	if err != nil {
		t.Fatalf("fetch: %v", err)
	}
	if record == nil {
		t.Fatal("fetch: neither a record nor an error")
	}
	t.Cleanup(record.Clear)
	return record
}

// expect reads the path and wants value in the field.
func expect(t testing.TB, h Harness, value string) secret.Version {
	t.Helper()
	record := fetch(t, h)
	expectField(t, record, field, value)
	return record.Version
}

func expectField(t testing.TB, record *source.Record, name, value string) {
	t.Helper()
	got, err := record.Value(name)
	if err != nil {
		t.Fatalf("field %s: %v", name, err)
	}
	if string(got.Reveal()) != value {
		t.Fatalf("field %s holds other bytes than were stored", name)
	}
}

// expectKind reads the path and wants an error of that kind.
func expectKind(t testing.TB, h Harness, want source.Kind) {
	t.Helper()
	record, err := h.Source().Fetch(t.Context(), h.Path())
	if record != nil {
		t.Errorf("a record came with the failure")
	}
	checkError(t, err, want, h.Path())
}
