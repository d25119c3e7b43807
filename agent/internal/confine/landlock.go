package confine

import (
	"fmt"
	"os"

	"github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
)

// features says which Landlock, and which Linux, can confine what.
var features = []struct {
	abi         int
	what, linux string
}{
	{1, "files aren't confined", "5.13"},
	{3, "truncating files isn't confined", "6.2"},
	{4, "TCP connections aren't confined", "6.7"},
	{5, "device ioctls aren't confined", "6.10"},
	{6, "signals and abstract sockets aren't confined", "6.12"},
}

// versions are what is used of each Landlock ABI. What those after the sixth restrict is untested here.
var versions = []landlock.Config{1: landlock.V1, landlock.V2, landlock.V3, landlock.V4, landlock.V5, landlock.V6}

// reading and writing are what may be done below a directory. A key's directory never needs devices or links, and nobody
// needs to run a program.
const (
	reading = ll.AccessFSReadFile | ll.AccessFSReadDir
	writing = reading | ll.AccessFSWriteFile | ll.AccessFSTruncate | ll.AccessFSMakeReg | ll.AccessFSMakeSock |
		ll.AccessFSMakeDir | ll.AccessFSRemoveFile | ll.AccessFSRemoveDir
)

// restrict uses Landlock as far as a kernel with this ABI has it.
func restrict(r Rules, abi int) (missing []string) {
	for _, f := range features {
		if abi < f.abi {
			missing = append(missing, fmt.Sprintf("%s (it takes Landlock %d: Linux %s)", f.what, f.abi, f.linux))
		}
	}
	if abi < 1 {
		return missing
	}
	version := versions[min(abi, len(versions)-1)]
	var rules []landlock.Rule
	below := func(paths []string, access landlock.AccessFSSet) {
		for _, path := range paths {
			info, err := os.Stat(path)
			switch { // a rule that can't be made would cancel all of them
			case err != nil:
			case info.IsDir():
				rules = append(rules, landlock.PathAccess(access&version.HandledAccessFS, path).IgnoreIfMissing())
			default:
				rules = append(rules, landlock.PathAccess(ll.AccessFSReadFile, path).IgnoreIfMissing())
			}
		}
	}
	below(r.Read, reading)
	below(r.ReadFiles, ll.AccessFSReadFile)
	below(r.Write, writing)
	if version.HandledAccessNet != 0 {
		for _, port := range r.Connect {
			rules = append(rules, landlock.ConnectTCP(port))
		}
	}
	if err := version.Restrict(rules...); err != nil {
		missing = append(missing, fmt.Sprintf("files, connections and signals aren't confined (Landlock fails: %v)", err))
	}
	return missing
}
