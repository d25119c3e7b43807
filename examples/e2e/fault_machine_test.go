package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
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
		name: "no descriptor left", did: "the agent may open nothing more (RLIMIT_NOFILE) when the next key comes", deaf: true,
		strike: func(w *world) { w.limitFiles(3); w.rotate() },
		mend:   func(w *world) { w.limitFiles(1024) },
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
		name: "clock set back", did: "the file is dated an hour ahead, as by a clock that was then set back; the agent is killed, and started",
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

// limitFiles decides how many descriptors the running agent may have: those above stay open.
func (w *world) limitFiles(n uint64) {
	w.t.Helper()
	asRoot(w.t)
	pid := w.agent.cmd.Process.Pid
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
