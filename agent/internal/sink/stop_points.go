//go:build stoppoints

package sink

import (
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// stopAt stops the process if the name of the file that is being written holds the step that was just done, as key.written
// does. The process goes on when somebody continues it. The signal goes to this very thread: another one would let this run
// on for an instant (signal(7)).
func stopAt(name, step string) {
	if strings.Contains(name, "."+step) {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
	}
}
