// Package source is the contract of every secret store that the agent reads from.
//
// A driver reads once and says what it found, or why it could not. It retries nothing, caches nothing and sleeps never:
// time, backoff and jitter belong to package turn. Package sourcetest holds the suite that every driver passes.
package source

import (
	"context"
	"fmt"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

// MaxValue is the most bytes that a driver returns as a value; a longer one is Invalid.
const MaxValue = 64 << 10

// Source reads secrets. It is safe for concurrent use.
type Source interface {
	// Fetch reads all fields of the secret at path once, and returns promptly when ctx ends. Its errors are *Error, or
	// ctx's own. The caller owns the record and clears it.
	Fetch(ctx context.Context, path string) (*Record, error)
}

// Keeper is a Source whose access to the store expires.
type Keeper interface {
	// Keep renews the access, or gains it anew, if it is time, and returns when to call again. Its errors are *Error, or
	// ctx's own; after one the caller decides when to try again.
	Keep(ctx context.Context) (next time.Duration, err error)
}

// Historian is a Source that still has earlier versions.
type Historian interface {
	// FetchVersion is Fetch for the version with that number. One that never was, or is gone, is NotFound.
	FetchVersion(ctx context.Context, path string, number int) (*Record, error)
}

// Kind says what a failure is about, and so who must wait for how long.
type Kind string

// Kinds of failures.
const (
	// Unavailable: the store was not reached, or what answered was not the store.
	Unavailable Kind = "unavailable"
	// Sealed: the store is there and can't answer before somebody unseals it.
	Sealed Kind = "sealed"
	// RateLimited: the store asks to be left alone for a while.
	RateLimited Kind = "rate_limited"
	// Unauthenticated: the store refuses to log the agent in.
	Unauthenticated Kind = "unauthenticated"
	// Denied: the agent is logged in and may not read this path.
	Denied Kind = "denied"
	// NotFound: nothing is at the path, or what was there has been deleted.
	NotFound Kind = "not_found"
	// Invalid: something is at the path, and it is not what was asked for.
	Invalid Kind = "invalid"
	// Failed: the store answers other requests, and fails at this one: an engine's backend is down, for instance.
	Failed Kind = "failed"
)

// StoreWide reports whether a failure of this kind says something about every path.
func (k Kind) StoreWide() bool {
	switch k {
	case Unavailable, Sealed, RateLimited, Unauthenticated:
		return true
	}
	return false
}

// Error is why a read failed. It names the place and the mend, and never holds a secret or what a store answered.
type Error struct {
	Kind Kind
	// Path is what was read; empty for a failure before any read, such as a login.
	Path string
	// Reason is a sentence without a capital and full stop: the fact, a colon, the mend.
	Reason string
	// RetryAfter is how long the store asked to be left alone; 0 if it didn't.
	RetryAfter time.Duration
}

// Error returns the place and the reason.
func (e *Error) Error() string {
	if e.Path == "" {
		return e.Reason
	}
	return fmt.Sprintf("%s: %s", e.Path, e.Reason)
}

// Record is what a store held at one path at one moment. It is not safe for concurrent changes; reading it is.
type Record struct {
	// Version is the store's; zero if it counts none.
	Version secret.Version
	// RefreshAfter is when the store wants to be asked again; 0 leaves it to the caller.
	RefreshAfter time.Duration

	path   string
	fields map[string]secret.Value
}

// NewRecord returns a record of what is at path. It owns fields from then on; a field that is there and isn't a string
// has the zero Value.
func NewRecord(path string, fields map[string]secret.Value) *Record {
	return &Record{path: path, fields: fields}
}

// Value returns a field's value, which lives until Clear. A field that is missing, no string or longer than MaxValue is an
// *Error of kind Invalid. The value may be empty, and hold any bytes: whether it may be published is not the store's matter.
func (r *Record) Value(field string) (secret.Value, error) {
	v, ok := r.fields[field]
	switch {
	case !ok:
		return secret.Value{}, r.invalid("there is no field %q: write one, or name another in AGENT_SECRETS", field)
	case v.IsZero():
		return secret.Value{}, r.invalid("the field %q is not a string: write it as one", field)
	case len(v.Reveal()) > MaxValue:
		return secret.Value{}, r.invalid("the field %q is longer than 64 KiB: name another in AGENT_SECRETS", field)
	}
	return v, nil
}

func (r *Record) invalid(format, field string) error {
	return &Error{Kind: Invalid, Path: r.path, Reason: fmt.Sprintf(format, field)}
}

// Clear overwrites all values of the record.
func (r *Record) Clear() {
	for _, v := range r.fields {
		v.Clear()
	}
}
