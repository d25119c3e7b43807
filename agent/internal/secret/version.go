package secret

import (
	"strconv"
	"time"
)

// Version says which of a store's successive values something is.
type Version struct {
	// Number is the store's own count, KV v2's for instance; 0 where the store has none. It is for people to read:
	// a secret that was deleted with all its versions starts again at 1.
	Number int
	// Created is when the store took the value in; zero where the store doesn't say. Versions are ordered by it.
	Created time.Time
}

// Before reports whether v is known to be older than w. Versions without a creation time are never before another.
func (v Version) Before(w Version) bool {
	return !v.Created.IsZero() && !w.Created.IsZero() && v.Created.Before(w.Created)
}

// IsZero reports whether nothing is known of the version.
func (v Version) IsZero() bool { return v.Number == 0 && v.Created.IsZero() }

// String returns the number, or "unversioned".
func (v Version) String() string {
	if v.Number == 0 {
		return "unversioned"
	}
	return strconv.Itoa(v.Number)
}

// Identity names a rendered file without saying anything of what it holds: its inode and its modification time in
// nanoseconds since 1970. The agent makes each render's time later than the last one's, so an identity is never used twice.
type Identity struct {
	Inode   uint64 `json:"inode"`
	ModTime int64  `json:"mtime_ns"`
}
