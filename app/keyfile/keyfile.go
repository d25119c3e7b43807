// Package keyfile turns a file into a stream of valid keys.
//
// Range over [Watcher.Keys]. It yields the key that the file holds, then each one that follows it:
//
//	w := keyfile.New(keyfile.Config{Path: "/run/keyturn/keys/gemini-api-key"})
//	for reading, err := range w.Keys(ctx) {
//		if err != nil {
//			log.Print(err) // the last good key is still yours
//			continue
//		}
//		use(reading.Key)
//	}
//
// # What it promises
//
// A key that is yielded is whole and fit for a header, and its file passed every check: a regular file of at most 4 KiB that
// belongs to our uid or to root, that neither group nor others can read, and that is not itself a mount point.
//
// A file that is renamed into place is taken at once. A file that is written in place is taken once it has been stable for
// 50 ms, so a writer may pause that long between two halves. What the kernel's inotify fails to tell is found within a tick:
// lost events, a directory that isn't there yet or is replaced, a link whose target is elsewhere, no inotify instance left.
//
// Nothing but ctx or the consumer ends the stream. Whatever is wrong with the file is yielded as an error that says where,
// what and how to mend it, and the stream goes on. An error lasts for 60 ms before it is yielded, so a file that is taken
// away and put back makes no noise.
//
// # How it tells a rename from a write
//
// Every write of content sets a file's mtime and its ctime to the same instant, and a rename sets the ctime alone. So a
// file whose mtime is not its ctime, and whose inode is not the one that was there at the last look, has been renamed, and
// is taken at once. Everything else waits until its ctime is old enough. The inode matters, since a chmod in the midst of
// a write parts the two times as well. To truncate a file empties it an instant before it is stamped; the 60 ms that an error
// must last cover that.
//
// What the rule can't see: who renames within the same tick of the clock as it wrote (up to 10 ms) and sets no mtime looks like a
// writer in place, and waits the 60 ms; keyturn's agent sets the mtime. Who renames a file and writes on, or makes one anew and
// changes its mode half-way before the first look, is not waited for: the half is yielded, and then the whole. On systems
// other than Linux every change waits.
//
// # Decisions
//
// The directory is watched, never the file: a rename ends a file's watch. Events are hints that say "look"; what a look finds is
// the truth. They are not filtered by name, since kubelet's ..data link changes the file under another one. Links are followed,
// and it is the file at their end that is checked, on the descriptor that is read.
//
// root may own the file, since kubelet's secret volumes belong to root, and root could read it anyway. Give such a volume
// defaultMode 0400 if the program runs as root, or set AllowGroup and the pod's fsGroup if it doesn't.
//
// Rejected: os.Root, which refuses a link that leads out of the directory, and pins a directory that is meant to be
// replaced. Rejected: to compare what stat says and read only when it has changed. A look costs microseconds, and stat
// can't be trusted for a file that is written twice within a tick. Rejected: a lease (F_SETLEASE), which knows of every writer
// that has the file open, but makes that writer wait, and is refused for root's files. Rejected: to hold the watched directory
// open, which would pin its inode number, but would also keep its mount busy.
package keyfile

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/fsnotify/fsnotify"
)

// Identity names a file without saying anything of what it holds: its inode, and its modification time in nanoseconds
// since 1970, taken with fstat on the descriptor that was read.
type Identity struct {
	Inode   uint64 `json:"inode"`
	ModTime int64  `json:"mtime_ns"`
}

// Reading is a key and the file that it was read from.
type Reading struct {
	Key      Key
	Identity Identity
}

// Config says which file to watch and how.
type Config struct {
	// Path names the file. Links are followed; changes are noticed at once only in the directory that Path names.
	Path string

	// Tick is how often the file is looked at when nothing has told of a change. The default is one second.
	Tick time.Duration

	// AllowGroup permits that the file's group reads it (never that it writes), as in a Kubernetes Secret volume of a
	// pod with an fsGroup.
	AllowGroup bool

	// Log hears when inotify fails and when it is back. Nil discards that. No error that is yielded is logged as well.
	Log *slog.Logger
}

// Watcher watches one file.
//
// Read and Check may be called at any time, from any goroutine. Keys is for one consumer at a time: of two, only one
// would hear of a Check.
type Watcher struct {
	config Config
	check  chan struct{} // capacity one

	notifier func() (*fsnotify.Watcher, error)
}

// New returns a watcher. It does no I/O and starts nothing; there is nothing to close.
func New(c Config) *Watcher {
	if c.Tick <= 0 {
		c.Tick = time.Second
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	return &Watcher{config: c, check: make(chan struct{}, 1), notifier: fsnotify.NewWatcher}
}

// Read looks at the file once, and never waits. Its error begins with the path, says how to mend what is wrong, and wraps
// one of this package's Err variables or what the system said (fs.ErrNotExist, fs.ErrPermission). None quotes the content.
//
// It remembers no earlier look. So it calls a file empty that is being truncated, and a chmod between two halves of a write
// deceives it, neither of which happens to Keys.
func (w *Watcher) Read() (Reading, error) { return w.look(&past{}) }

// Check makes Keys look at the file at once, as an event would. It never blocks. If nobody ranges over Keys, the next one
// who does gets the look; several calls may become one look.
func (w *Watcher) Check() {
	select {
	case w.check <- struct{}{}:
	default:
	}
}

// Keys returns the stream of what the file holds. It subscribes to the directory before it first reads.
//
// It yields a Reading whenever the key or the identity differs from the last one yielded: a file that was replaced by equal
// bytes comes as the same key with a new identity. After an error the next Reading comes whatever it holds, so that its consumer
// knows that all is well again.
//
// It yields an error, with a zero Reading, when the reason why no valid key can be read has changed: once a change, not
// once a tick. Errors are those of Read; the last key that was yielded is still the last good one. [ErrUnsettled] comes only
// if the file has been written to for a second.
//
// It ends when ctx ends or when the consumer breaks, and has then stopped all that it started. It may be ranged over again,
// and then begins anew.
func (w *Watcher) Keys(ctx context.Context) iter.Seq2[Reading, error] {
	return func(yield func(Reading, error) bool) {
		dir := watch{dir: filepath.Dir(w.config.Path), log: w.config.Log, notifier: w.notifier, woken: make(chan struct{}, 1)}
		defer dir.close()
		tick := time.NewTicker(w.config.Tick)
		defer tick.Stop()
		var past past
		said := said{yield: yield}
		for ctx.Err() == nil {
			dir.follow()
			reading, err := w.look(&past)
			again, more := said.say(reading, err, time.Now())
			if !more {
				return
			}
			select {
			case <-ctx.Done():
			case <-dir.woken:
			case <-w.check:
			case <-tick.C:
			case <-again:
			}
		}
	}
}

// said is what the consumer has been told.
type said struct {
	yield   func(Reading, error) bool
	reading Reading // the last one
	err     string  // what was told after it, if anything

	failing string // what the looks end with since since
	since   time.Time
}

// say tells the consumer what a look at the time now has found, if that is news. again fires when the next look is due, if that
// is before the tick; more is false if the consumer wants no more.
func (s *said) say(r Reading, err error, now time.Time) (again <-chan time.Time, more bool) {
	if err == nil {
		s.failing = ""
		if s.err == "" && r.Identity == s.reading.Identity && r.Key.Equal(s.reading.Key) {
			return nil, true
		}
		s.err, s.reading = "", r
		return nil, s.yield(r, nil)
	}
	if text := err.Error(); text != s.failing {
		s.failing, s.since = text, now
	}
	unsettled := errors.Is(err, ErrUnsettled)
	patience := settle
	if unsettled {
		patience = time.Second
	}
	due := now.Sub(s.since) >= patience
	if !due || unsettled {
		again = time.After(settle)
	}
	if !due || s.failing == s.err {
		return again, true
	}
	s.err = s.failing
	return again, s.yield(Reading{}, err)
}
