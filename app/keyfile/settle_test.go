package keyfile

import (
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestWhatCountsAsRenamed(t *testing.T) {
	const ms = int64(time.Millisecond)
	now := time.Unix(1_800_000_000, 500*ms)
	at := func(inode uint64, written, change int64) stamp {
		return stamp{inode: inode, size: 3, written: now.UnixNano() - written*ms, change: now.UnixNano() - change*ms}
	}
	type look struct {
		stamp stamp
		want  bool
	}
	for what, looks := range map[string][]look{
		"written an hour ago":                            {{at(1, 3_600_000, 3_600_000), true}},
		"written just now":                               {{at(1, 0, 0), false}},
		"written 59 ms ago":                              {{at(1, 59, 59), false}},
		"written 60 ms ago":                              {{at(1, 60, 60), true}},
		"renamed just now":                               {{at(1, 2, 0), true}},
		"renamed, and mtime set to tomorrow":             {{at(1, -86_400_000, 0), true}},
		"renamed, and looked at twice":                   {{at(1, 2, 0), true}, {at(1, 2, 0), true}},
		"renamed over what was renamed":                  {{at(1, 9, 8), true}, {at(2, 1, 0), true}},
		"renamed, then written":                          {{at(1, 9, 8), true}, {at(1, 0, 0), false}},
		"written, then chmod":                            {{at(1, 9, 9), false}, {at(1, 9, 0), false}},
		"renamed, then written, then chmod":              {{at(1, 9, 8), true}, {at(1, 7, 7), false}, {at(1, 7, 0), false}},
		"written, then renamed over":                     {{at(1, 9, 9), false}, {at(2, 1, 0), true}},
		"before the clock was set back":                  {{at(1, -3_600_000, -3_600_000), true}},
		"a file system that counts in seconds, this one": {{stamp{1, 3, 1_800_000_000_000 * ms, 1_800_000_000_000 * ms}, false}},
		"a file system that counts in seconds, earlier":  {{stamp{1, 3, 1_799_999_998_000 * ms, 1_799_999_998_000 * ms}, true}},
	} {
		var p past
		for i, look := range looks {
			if got := p.settled(look.stamp, now); got != look.want {
				t.Errorf("%s, look %d: %v, want %v", what, i+1, got, look.want)
			}
		}
	}
}

func TestARenameIsTakenAtOnce(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "key")
		w := New(Config{Path: path})
		for range 100 {
			id := render(t, path, "whole")
			if got, err := w.Read(); err != nil || got.Key.Reveal() != "whole" || got.Identity != id {
				t.Fatalf("%v, %v; want %v", got.Identity, err, id)
			}
		}
	})
}

func TestAWriteInPlaceIsTakenOnceItIsStable(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "key")
		w := New(Config{Path: path})
		for _, content := range []string{"one", "two", "three"} {
			start := time.Now()
			must(t, os.WriteFile(path, []byte(content), 0o600))
			for deadline := start.Add(patience); ; {
				got, err := w.Read()
				if err == nil {
					if got.Key.Reveal() != content || time.Since(start) < 50*time.Millisecond {
						t.Errorf("took %q %v after the write began", got.Key.Reveal(), time.Since(start))
					}
					break
				}
				if !errors.Is(err, ErrUnsettled) || time.Now().After(deadline) {
					t.Fatal(err)
				}
			}
		}
	})
}

const (
	// rest is how long a slow writer pauses.
	rest = 20 * time.Millisecond
	// pause is the longest that a writer may make, by the clock of who waits for him.
	pause = 45 * time.Millisecond
)

// slowly writes content in so many pieces, and does between, if there is that, in the pause after the first. Where the machine
// makes more of a pause than a writer may take, it says that it was too slow.
func slowly(path, content string, pieces int, between func() error) (tooSlow bool, err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return false, err
	}
	defer f.Close()
	last := time.Now()
	for i := range pieces {
		if i > 0 {
			<-time.After(rest)
		}
		if _, err := f.WriteString(content[i*len(content)/pieces : (i+1)*len(content)/pieces]); err != nil {
			return false, err
		}
		if i == 0 && between != nil {
			if err := between(); err != nil {
				return false, err
			}
		}
		tooSlow = tooSlow || time.Since(last) > pause
		last = time.Now()
	}
	return tooSlow, nil
}

// However a person or a program puts the new key where the old one is, nobody sees half of it.
func TestEveryWayToWriteAFileGivesTheWholeKey(t *testing.T) {
	shell := func(script string) func(path, content string) (bool, error) {
		return func(path, content string) (bool, error) {
			cmd := exec.Command("sh", "-ec", script)
			cmd.Env = append(os.Environ(), "KEY="+content, "F="+path)
			start := time.Now()
			err := cmd.Run()
			return time.Since(start) > pause, err // its pauses aren't seen, but none is longer than all of it
		}
	}
	ways := map[string]func(path, content string) (tooSlow bool, err error){
		"os.WriteFile": func(path, content string) (bool, error) {
			start := time.Now()
			err := os.WriteFile(path, []byte(content), 0o600)
			return time.Since(start) > pause, err
		},
		"two halves": func(path, content string) (bool, error) { return slowly(path, content, 2, nil) },
		"ten pieces": func(path, content string) (bool, error) { return slowly(path, content, 10, nil) },
		"two halves, chmod between": func(path, content string) (bool, error) {
			return slowly(path, content, 2, func() error { return os.Chmod(path, 0o600) })
		},
		"two halves, a link between": func(path, content string) (bool, error) {
			return slowly(path, content, 2, func() error { return errors.Join(os.Link(path, path+"2"), os.Remove(path+"2")) })
		},
		"deleted, then two halves": func(path, content string) (bool, error) {
			start := time.Now()
			must(t, os.Remove(path))
			tooSlow, err := slowly(path, content, 2, nil)
			return tooSlow || time.Since(start) > rest+pause, err
		},
		"redirection":       shell(`printf %s "$KEY" > "$F"`),
		"two redirections":  shell(`printf %.5s "$KEY" > "$F"; printf %s "${KEY#?????}" >> "$F"`),
		"cp":                shell(`printf %s "$KEY" > "$F.new"; cp "$F.new" "$F"; rm "$F.new"`),
		"cp -p":             shell(`printf %s "$KEY" > "$F.new"; chmod 600 "$F.new"; cp -p "$F.new" "$F"; rm "$F.new"`),
		"cp -p, an old one": shell(`printf %s "$KEY" > "$F.new"; chmod 600 "$F.new"; touch -d 2001-01-01 "$F.new"; cp -p "$F.new" "$F"; rm "$F.new"`),
		"mv":                shell(`umask 077; printf %s "$KEY" > "$F.new"; mv "$F.new" "$F"`),
		"mv from memory":    shell(`n=$(mktemp -p /dev/shm); printf %s "$KEY" > "$n"; mv "$n" "$F"`),
		"mv from a disk":    shell(`n=$(mktemp -p /tmp); printf %s "$KEY" > "$n"; mv "$n" "$F"`),
		"rm and write":      shell(`umask 077; rm "$F"; printf %s "$KEY" > "$F"`),
		"chmod after":       shell(`rm "$F"; umask 022; printf %s "$KEY" > "$F"; chmod 600 "$F"`),
		"dd":                shell(`printf %s "$KEY" | dd of="$F" bs=3 2>/dev/null`),
		"install":           shell(`printf %s "$KEY" > "$F.new"; install -m 600 "$F.new" "$F"; rm "$F.new"`),
	}
	places(t, func(t *testing.T, dir string) {
		for what, write := range ways {
			t.Run(what, func(t *testing.T) {
				path := filepath.Join(dir, strings.ReplaceAll(what, " ", "-"))
				render(t, path, "old-key")
				c := consume(t, New(Config{Path: path, Tick: never}))
				c.key("old-key")
				wasSlow := false // what comes of that may come in the next round
				for round, content := range []string{"the-next-key", "the-one-that-follows-it"} {
					tooSlow, err := write(path, content)
					must(t, err)
					wasSlow = wasSlow || tooSlow
					i := c.next()
					for wasSlow && i.Key.Reveal() != content {
						t.Logf("round %d: the writer was slower than it may be: %v", round, i)
						i = c.next()
					}
					if i.err != nil || i.Key.Reveal() != content {
						t.Fatalf("round %d: %v; want %q", round, i, content)
					}
				}
			})
		}
	})
}

// Who never stops writing is told of, and is taken when it stops.
func TestAFileThatIsWrittenForEverIsSaidOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	render(t, path, "old")
	c := consume(t, New(Config{Path: path, Tick: never}))
	c.key("old")
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	told := false
	for deadline := time.Now().Add(patience); !told; <-tick.C {
		must(t, os.WriteFile(path, []byte("ever-changing"), 0o600))
		select {
		case i := <-c.items:
			told = errors.Is(i.err, ErrUnsettled)
			if !told && i.Key.Reveal() != "ever-changing" { // it may come if this loop was held up
				t.Fatalf("%v; want ErrUnsettled", i)
			}
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing was said")
		}
	}
	c.key("ever-changing")
	c.stop()
	c.nothing()
}

// One writer renames files into place, or writes in place, as it comes; readers get one of the keys, whole, or hear that the file
// is being written.
func TestNoReadIsTorn(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		path := filepath.Join(dir, "key")
		keys := []string{strings.Repeat("a", 10), strings.Repeat("b", 500), strings.Repeat("c", MaxSize)}
		render(t, path, keys[0])
		w := New(Config{Path: path})
		var done, slow atomic.Bool
		var whole, unsettled, torn atomic.Int64
		var readers sync.WaitGroup
		for range 2 {
			readers.Go(func() {
				for !done.Load() {
					reading, err := w.Read()
					switch key := reading.Key.Reveal(); {
					case errors.Is(err, ErrUnsettled), errors.Is(err, ErrEmpty): // ext4 empties a file before it stamps it
						unsettled.Add(1)
					case err != nil || !slices.Contains(keys, key):
						if torn.Add(1) == 1 {
							t.Logf("%d bytes, %v", len(key), err)
						}
					default:
						whole.Add(1)
					}
				}
			})
		}
		for i := range 40 {
			content := keys[i%3]
			if i%4 == 0 {
				start := time.Now()
				f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
				must(t, err)
				for half := range strings.SplitSeq(content[:len(content)/2]+"|"+content[len(content)/2:], "|") {
					f.WriteString(half)
				}
				f.Close()
				slow.Store(slow.Load() || time.Since(start) > 50*time.Millisecond)
			} else {
				render(t, path, content)
			}
			<-time.After(time.Duration(rand.Int64N(int64(settle * 3 / 2))))
		}
		done.Store(true)
		readers.Wait()
		t.Logf("%d reads were whole, %d unsettled", whole.Load(), unsettled.Load())
		if whole.Load() < 100 || unsettled.Load() == 0 {
			t.Error("too few reads to say anything")
		}
		if torn.Load() > 0 && !slow.Load() {
			t.Errorf("%d reads were torn", torn.Load())
		}
	})
}
