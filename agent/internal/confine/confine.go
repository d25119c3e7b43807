// Package confine takes from this process what it doesn't need, so that whoever takes the process over gains little.
//
// Landlock bounds which files it may open and which TCP ports it may connect to; no new privileges may be gained and no
// capability kept; nobody may read its memory or get it as a core file. All of it holds for the rest of the process's life.
//
// What it can't do: Landlock knows ports and no hosts, says nothing of UDP before its version 10, and nothing of Multipath
// TCP and TCP Fast Open. Descriptors that were opened before stay usable.
//
// Rules go on directories. A rule on a file is one on its inode, so it dies when the file is replaced, as a projected token
// is every few minutes and ~/.vault-token at each "vault login" (landlock(7)).
package confine

import (
	"fmt"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"
	"kernel.org/pub/linux/libs/security/libcap/psx"
)

// Rules are what stays allowed.
type Rules struct {
	// Read are directories below which everything may be read, and Write those below which files, directories and sockets
	// may also be made, changed and removed. What is missing when Apply runs stays closed.
	Read, Write []string
	// ReadFiles are single files that nobody ever replaces, such as those of /proc.
	ReadFiles []string
	// Connect are the TCP ports that may be connected to.
	Connect []uint16
}

// Apply confines the whole process, all threads of it. It returns what isn't in force, a phrase each, because this kernel
// can't do it or refuses to: the rest is.
func Apply(r Rules) (missing []string) {
	abi, _ := ll.LandlockGetABIVersion() // an error says that there is none: below 1
	return apply(r, abi)
}

func apply(r Rules, abi int) (missing []string) {
	for _, step := range []struct {
		without string
		take    func() error
	}{
		{"new privileges aren't forbidden", forbidPrivileges},
		{"others may look into its memory", forbidLooks},
		{"a core file may be left", forbidCores},
		{"capabilities are kept", dropCapabilities},
	} {
		if err := step.take(); err != nil {
			missing = append(missing, fmt.Sprintf("%s (%v)", step.without, err))
		}
	}
	return append(missing, restrict(r, abi)...)
}

func forbidPrivileges() error {
	if _, _, errno := psx.Syscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

func forbidLooks() error { return unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

func forbidCores() error { return unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }

// dropCapabilities gives up all capabilities that are held, ambient ones included (capabilities(7)).
func dropCapabilities() error {
	none := cap.NewSet()
	if held, err := cap.GetProc().Cf(none); err == nil && held == 0 {
		return nil
	}
	return none.SetProc()
}
