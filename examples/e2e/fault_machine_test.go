package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stranger is who agent and app run as where a limit of a user is used up: nobody else here does.
const stranger = 65531

// machineFaults happen to the machine that agent and app run on.
var machineFaults = []fault{
	{
		name: "tmpfs full", did: "no block is left when the next key comes", setting: setting{dir: smallTmpfs},
		strike: func(w *world) { w.fillUp(make([]byte, 4096)); w.rotate() },
		mend:   func(w *world) { w.makeRoom() },
	},
	{
		name: "no inode left", did: "no file can be made when the next key comes", setting: setting{dir: smallTmpfs},
		strike: func(w *world) { w.fillUp(nil); w.rotate() },
		mend:   func(w *world) { w.makeRoom() },
	},
	{
		name: "no inode left at the start", did: "an agent is started where no file can be made", ends: true, setting: setting{dir: smallTmpfs},
		strike: func(w *world) {
			w.end(w.agent.process)
			w.try(os.Remove(filepath.Join(w.dir, "agent.sock"))) // as one that was told to stop does
			w.fillUp(nil)
			w.startAgent()
			w.rotate()
			w.agent.troubled(w.t, "render")
		},
		mend: func(w *world) { w.makeRoom() },
	},
	{
		name: "no descriptor left", did: "the agent may open nothing more (RLIMIT_NOFILE) when the next key comes", deaf: true,
		strike: func(w *world) {
			w.limitFiles(w.agent.process, 3)
			w.rotate()
			w.agent.troubled(w.t, "")
		},
		mend: func(w *world) {
			if holds(w.path(), w.current) {
				w.t.Error("the key was rendered: the agent had a descriptor left")
			}
			w.limitFiles(w.agent.process, 1024)
		},
	},
	{
		name: "no descriptor left in the app", did: "the app may open nothing more when the next key comes; who asks over a new connection has nobody to answer, and isn't counted", deaf: true,
		strike: func(w *world) {
			w.away()
			w.limitFiles(w.app, 3)
			w.rotate()
			eventually(w.t, "the app says that it can't read the key", func() bool {
				return w.app.count(func(l logged) bool { return strings.HasPrefix(l.Msg, "the key file holds no valid key") }) == 1
			})
		},
		mend: func(w *world) {
			w.limitFiles(w.app, 1024)
			w.back()
		},
	},
	{
		name: "no inotify instance left", did: "the app can't watch the directory, from its start on", felt: never, lines: 3,
		setting: setting{uid: stranger, before: func(w *world) { useUpInotify(w.t, stranger) }},
		strike: func(w *world) {
			before := w.generation()
			w.rotate()
			eventually(w.t, "the app finds the key without a watch", func() bool { return w.generation() > before })
			if n := w.app.count(func(l logged) bool { return l.Level == "WARN" }); n != 1 {
				w.t.Errorf("the app warns %d times that it can't watch, want once", n)
			}
		},
	},
	{
		name: "clock set back", did: "the file is dated an hour ahead, as by a clock that was then set back; the agent is killed, and started", ends: true,
		strike: func(w *world) {
			w.end(w.agent.process)
			ahead := time.Now().Add(time.Hour)
			w.try(os.Chtimes(w.path(), ahead, ahead))
		},
		mend: func(w *world) { w.startAgent(); w.rotate() },
	},
}

// smallTmpfs mounts a tmpfs with room for a few keys.
func smallTmpfs(w *world) string {
	w.t.Helper()
	asRoot(w.t)
	dir := filepath.Join(memory(w.t), "keys")
	w.try(os.Mkdir(dir, 0o700))
	w.try(unix.Mount("tmpfs", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=64k,nr_inodes=32,mode=0700"))
	w.t.Cleanup(func() {
		w.end(w.app)
		w.end(w.agent.process)
		w.try(unix.Unmount(dir, 0))
	})
	return dir
}

// asRoot ends a test that isn't run by root: a failure where CI is "true", else a skip that says so.
func asRoot(t testing.TB) {
	t.Helper()
	switch {
	case os.Geteuid() == 0:
	case os.Getenv("CI") == "true":
		t.Fatal("this test needs root")
	default:
		t.Skip("NOT TESTED: only root can make this fault")
	}
}

// fillUp makes files of that content until no more can be.
func (w *world) fillUp(content []byte) {
	w.t.Helper()
	for i := range 1000 {
		if err := os.WriteFile(filepath.Join(w.dir, fmt.Sprintf("filler-%d", i)), content, 0o600); err != nil {
			return
		}
	}
	w.t.Fatal("the tmpfs is never full")
}

func (w *world) makeRoom() {
	w.t.Helper()
	for _, path := range must[[]string](w.t)(filepath.Glob(filepath.Join(w.dir, "filler-*"))) {
		w.try(os.Remove(path))
	}
}

// troubled waits until the agent says that something ails it, of that kind if one is given.
func (a *agent) troubled(t testing.TB, kind string) {
	t.Helper()
	eventually(t, "the agent says what ails it", func() bool {
		return a.count(func(l logged) bool { return l.Level == "WARN" && (kind == "" || l.Kind == kind) }) > 0
	})
}

// limitFiles decides how many descriptors a running process may have: those above stay open.
func (w *world) limitFiles(p *process, n uint64) {
	w.t.Helper()
	asRoot(w.t)
	pid := p.cmd.Process.Pid
	var limit unix.Rlimit
	w.try(unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &limit))
	limit.Cur = min(n, limit.Max)
	w.try(unix.Prlimit(pid, unix.RLIMIT_NOFILE, &limit, nil))
}

// useUpInotify holds all inotify instances that a user may have until the test ends (fs.inotify.max_user_instances).
func useUpInotify(t testing.TB, uid int) {
	t.Helper()
	asRoot(t)
	held := make(chan []int)
	go func() {
		runtime.LockOSThread() // never undone: the thread, which alone becomes that user, ends with the goroutine
		var all []int
		if _, _, errno := syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno == 0 {
			for {
				fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
				if err != nil {
					break
				}
				all = append(all, fd)
			}
		}
		held <- all
	}()
	all := <-held
	t.Cleanup(func() {
		for fd := range slices.Values(all) {
			unix.Close(fd)
		}
	})
	if len(all) == 0 {
		t.Fatal("no inotify instance could be used up")
	}
}
