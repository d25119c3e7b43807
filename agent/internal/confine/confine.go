// Package confine takes from this process what it doesn't need, so that whoever takes the process over gains little.
//
// Landlock bounds which files it may open and which TCP ports it may connect to; no new privileges may be gained and no
// capability kept; nobody may read its memory or get it as a core file. All of it holds for the rest of the process's life.
//
// What it can't do: Landlock knows ports and no hosts, says nothing of UDP before its version 10, and nothing of Multipath
// TCP. Descriptors that were opened before stay usable.
//
// Rules go on directories. A rule on a file is one on its inode, so it dies when the file is replaced, as a projected token
// is every few minutes (landlock(7)).
package confine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Rules are what stays allowed.
type Rules struct {
	// Read are directories below which everything may be read, and Write those below which files, directories and sockets
	// may also be made, changed and removed. A directory that is missing when Apply runs stays closed.
	Read, Write []string
	// ReadFiles are single files that nobody ever replaces, such as those of /proc.
	ReadFiles []string
	// Connect are the TCP ports that may be connected to.
	Connect []uint16
}

// Apply confines the whole process, all threads of it. It returns what this kernel can't do, a phrase each: the rest is in
// force. An error means that something which the kernel can do has failed; then nobody knows what is in force.
func Apply(r Rules) (missing []string, err error) {
	if err := keepToItself(); err != nil {
		return nil, err
	}
	if err := dropCapabilities(); err != nil {
		return nil, err
	}
	return restrict(r)
}

// keepToItself forbids new privileges (PR_SET_NO_NEW_PRIVS), and core files and the look of others into memory
// (PR_SET_DUMPABLE, prctl(2)).
func keepToItself() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return fmt.Errorf("forbid new privileges: %w", errno)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("make the process undumpable: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("limit core files to nothing: %w", err)
	}
	return nil
}

// dropCapabilities gives up all capabilities that are held, ambient ones included (capabilities(7)).
func dropCapabilities() error {
	none := cap.NewSet()
	if held, err := cap.GetProc().Cf(none); err == nil && held == 0 {
		return nil
	}
	if err := none.SetProc(); err != nil {
		return fmt.Errorf("drop the capabilities: %w", err)
	}
	return nil
}

// features says from which Landlock ABI on the kernel can do what.
var features = []struct {
	abi  int
	what string
}{
	{1, "files aren't confined (no Landlock)"},
	{4, "TCP connections aren't confined (Landlock before version 4)"},
	{6, "signals and abstract sockets aren't confined (Landlock before version 6)"},
}

// restrict uses Landlock as far as the kernel has it, up to version 6: what later ones restrict is untested here.
func restrict(r Rules) (missing []string, err error) {
	abi, _ := ll.LandlockGetABIVersion() // an error says that there is none: below 1
	for _, f := range features {
		if abi < f.abi {
			missing = append(missing, f.what)
		}
	}
	rules := []landlock.Rule{
		landlock.PathAccess(ll.AccessFSReadFile|ll.AccessFSReadDir, present(r.Read)...),
		landlock.PathAccess(ll.AccessFSReadFile, present(r.ReadFiles)...),
		landlock.PathAccess(writing, present(r.Write)...),
	}
	for _, port := range r.Connect {
		rules = append(rules, landlock.ConnectTCP(port))
	}
	if err := landlock.V6.BestEffort().Restrict(rules...); err != nil {
		return missing, fmt.Errorf("restrict by Landlock: %w", err)
	}
	return missing, nil
}

// writing leaves out what a key's directory never needs: devices, links, and running a program.
const writing = ll.AccessFSReadFile | ll.AccessFSReadDir | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg |
	ll.AccessFSMakeSock | ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir

func present(paths []string) []string {
	return slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		_, err := os.Stat(path)
		return err != nil
	})
}

// ErrTooWide is what Directories returns, wrapped, for a file that lies in the root or in a directory of somebody's own.
var ErrTooWide = errors.New("it lies in a directory that holds more than credentials")

// Directories returns the directories to read so that file can be read, also when it is replaced: the one that its path
// names and, where links lead elsewhere, those that they lead to. None of them may be the root or home, which may be empty.
func Directories(file, home string) ([]string, error) {
	file, err := filepath.Abs(file)
	if err != nil {
		return nil, err
	}
	dirs := []string{filepath.Dir(file)}
	for _, start := range []string{file, filepath.Dir(file)} {
		if resolved, err := filepath.EvalSymlinks(start); err == nil {
			if start == file {
				resolved = filepath.Dir(resolved)
			}
			dirs = append(dirs, resolved)
		}
	}
	slices.Sort(dirs)
	dirs = slices.Compact(dirs)
	for _, dir := range dirs {
		if dir == "/" || home != "" && dir == filepath.Clean(home) {
			return nil, fmt.Errorf("%s: %w: move it into a directory of its own", file, ErrTooWide)
		}
	}
	return dirs, nil
}
