package confine

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"

	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// attempts are what a confined process tries, by name, and how each ended: "" is success.
type attempts map[string]string

// confined is what the child process of a test is told to do.
type confined struct {
	Rules                     Rules
	Inside, Outside, Writable string
	OpenPort, ClosedPort      int
	Swap, WithSwap            string
	Abstract                  string // a socket of somebody else's, without a file
	ABI                       int    // of Landlock; 0: the kernel's, and below: none
}

// TestMain runs the child: confinement can't be undone, so each test confines a process of its own.
func TestMain(m *testing.M) {
	if text := os.Getenv("KEYTURN_CONFINED"); text != "" {
		var c confined
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			panic(err)
		}
		if err := json.NewEncoder(os.Stdout).Encode(c.try()); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func (c confined) try() attempts {
	a := attempts{}
	note := func(name string, err error) {
		a[name] = ""
		if err != nil {
			a[name] = err.Error()
		}
	}
	// Threads that exist before must be confined as well as those that come.
	begin, done := make(chan struct{}), make(chan error)
	for range 4 {
		go func() {
			runtime.LockOSThread()
			<-begin
			_, err := os.ReadFile(c.Outside)
			done <- err
		}()
	}
	var missing []string
	if c.ABI == 0 {
		missing = Apply(c.Rules)
	} else {
		missing = apply(c.Rules, c.ABI)
	}
	a["missing"] = strings.Join(missing, "; ")
	close(begin)
	for i := range 4 {
		note(fmt.Sprintf("read outside in thread %d", i), <-done)
	}
	c.tryFiles(note)
	c.tryOthers(note)
	status, err := os.ReadFile("/proc/self/status")
	note("read /proc/self/status", err)
	a["status"] = string(status)
	dumpable, _ := unix.PrctlRetInt(unix.PR_GET_DUMPABLE, 0, 0, 0, 0)
	a["dumpable"] = strconv.Itoa(dumpable)
	var core unix.Rlimit
	note("getrlimit", unix.Getrlimit(unix.RLIMIT_CORE, &core))
	a["core"] = fmt.Sprint(core.Cur, core.Max)
	return a
}

func (c confined) tryFiles(note func(string, error)) {
	read := func(path string) error { _, err := os.ReadFile(path); return err }
	note("read inside", read(c.Inside))
	note("read outside", read(c.Outside))
	note("write inside", os.WriteFile(c.Inside, nil, 0o600))
	note("write outside", os.WriteFile(c.Outside, nil, 0o600))
	note("write where writing is allowed", os.WriteFile(filepath.Join(c.Writable, "new"), []byte("x"), 0o600))
	note("rename where writing is allowed", os.Rename(filepath.Join(c.Writable, "new"), filepath.Join(c.Writable, "newer")))
	note("remove where writing is allowed", os.Remove(filepath.Join(c.Writable, "newer")))
	note("link where writing is allowed", os.Symlink("/etc", filepath.Join(c.Writable, "link")))
	note("socket where writing is allowed", listen("unix", filepath.Join(c.Writable, "s")))
	note("write beside", os.WriteFile(filepath.Join(filepath.Dir(c.Writable), "beside"), nil, 0o600))
	note("run a program", exec.Command("/bin/true").Run())
	note("read through a link that is allowed", read(c.WithSwap))
	note("swap the link", os.Rename(c.Swap+".new", c.Swap))
	note("read through the swapped link", read(c.WithSwap))
}

func (c confined) tryOthers(note func(string, error)) {
	dial := func(network, address string) error {
		conn, err := net.Dial(network, address)
		if err == nil {
			conn.Close()
		}
		return err
	}
	note("connect to an allowed port", dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.OpenPort))))
	note("connect to another port", dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(c.ClosedPort))))
	note("connect to an abstract socket", dial("unix", c.Abstract))
	note("signal another process", unix.Kill(os.Getppid(), 0))
	note("signal itself", unix.Kill(os.Getpid(), 0))
	note("truncate outside", os.Truncate(c.Outside, 0))
}

func listen(network, address string) error {
	l, err := net.Listen(network, address)
	if err == nil {
		l.Close()
	}
	return err
}

// run confines a child process and returns what became of its attempts.
func run(t *testing.T, c confined) attempts {
	t.Helper()
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "KEYTURN_CONFINED="+string(text))
	var out, failed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &failed
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %s", err, failed.String())
	}
	var a attempts
	if err := json.Unmarshal(out.Bytes(), &a); err != nil {
		t.Fatalf("%v in %q, %s", err, out.String(), failed.String())
	}
	return a
}

// needLandlock ends a test where the kernel has no Landlock of that version.
func needLandlock(t *testing.T, abi int) {
	if have, err := ll.LandlockGetABIVersion(); err != nil || have < abi {
		if os.Getenv("CI") == "true" {
			t.Fatalf("Landlock %d is needed, there is %d (%v)", abi, have, err)
		}
		t.Skipf("NOT TESTED: the kernel has Landlock %d (%v), and this needs %d", have, err, abi)
	}
}

// stage makes what a confined process tries itself on.
func stage(t *testing.T) confined {
	dir := t.TempDir()
	c := confined{
		Inside: filepath.Join(dir, "in", "token"), Outside: filepath.Join(dir, "out", "token"), Writable: filepath.Join(dir, "keys"),
		Swap: filepath.Join(dir, "swap", "..data"), WithSwap: filepath.Join(dir, "swap", "..data", "token"),
		OpenPort: port(t), ClosedPort: port(t),
	}
	for _, file := range []string{c.Inside, c.Outside, filepath.Join(dir, "swap", "..1", "token"), filepath.Join(dir, "swap", "..2", "token")} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o700), os.WriteFile(file, []byte("x"), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Mkdir(c.Writable, 0o700), os.Symlink("..1", c.Swap), os.Symlink("..2", c.Swap+".new")); err != nil {
		t.Fatal(err)
	}
	c.Abstract = "@keyturn-" + rand.Text()
	l, err := net.Listen("unix", c.Abstract)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	c.Rules = Rules{
		Read:      []string{filepath.Dir(c.Inside), "/proc/self", filepath.Join(dir, "missing")},
		ReadFiles: []string{"/proc/stat"},
		Write:     []string{c.Writable, filepath.Dir(c.Swap)},
		Connect:   []uint16{uint16(c.OpenPort)},
	}
	return c
}

// port returns a port of 127.0.0.1 that somebody listens on.
func port(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port
}

func TestAConfinedProcessReachesWhatItNeedsAndNothingElse(t *testing.T) {
	needLandlock(t, 6)
	a := run(t, stage(t))
	if a["missing"] != "" {
		t.Errorf("this kernel has all that is used, and Apply misses %q", a["missing"])
	}
	for _, name := range []string{"read inside", "signal itself", "write where writing is allowed", "rename where writing is allowed",
		"remove where writing is allowed", "socket where writing is allowed", "connect to an allowed port", "read /proc/self/status",
		"read through a link that is allowed", "read through the swapped link"} {
		if reason, tried := a[name]; !tried || reason != "" {
			t.Errorf("%s: %q", name, reason)
		}
	}
	for _, name := range []string{"read outside", "read outside in thread 0", "read outside in thread 3", "write inside",
		"write outside", "truncate outside", "write beside", "link where writing is allowed", "run a program", "connect to another port",
		"connect to an abstract socket", "signal another process"} {
		if reason := a[name]; !strings.Contains(reason, "permission denied") && !strings.Contains(reason, "not permitted") {
			t.Errorf("%s is possible, or fails otherwise: %q", name, reason)
		}
	}
}

func TestAConfinedProcessKeepsNoPrivilegesAndNoCore(t *testing.T) {
	a := run(t, stage(t))
	for name, pattern := range map[string]string{
		"no new privileges": `NoNewPrivs:\t1`, "permitted": `CapPrm:\t0+\n`, "effective": `CapEff:\t0+\n`, "ambient": `CapAmb:\t0+\n`,
	} {
		if !regexp.MustCompile(pattern).MatchString(a["status"]) {
			t.Errorf("%s: %s", name, a["status"])
		}
	}
	if a["dumpable"] != "0" || a["core"] != "0 0" {
		t.Errorf("dumpable %s, core size %s", a["dumpable"], a["core"])
	}
}

// An older kernel confines less, says what, and does all the rest.
func TestAnOlderKernelConfinesWhatItCanAndTheRestIsNamed(t *testing.T) {
	needLandlock(t, 6)
	bounds := []struct {
		abi     int // from which on it is
		attempt string
		says    string
	}{
		{1, "read outside", "files aren't confined (it takes Landlock 1: Linux 5.13)"},
		{1, "write beside", ""},
		{3, "truncate outside", "truncating files isn't confined"},
		{4, "connect to another port", "TCP connections aren't confined"},
		{5, "", "device ioctls aren't confined"},
		{6, "signal another process", "signals and abstract sockets aren't confined"},
		{6, "connect to an abstract socket", ""},
	}
	for _, abi := range []int{-1, 1, 2, 3, 4, 5, 6, 7} {
		c := stage(t)
		c.ABI = abi
		a := run(t, c)
		for _, name := range []string{"read inside", "write where writing is allowed", "connect to an allowed port"} {
			if reason, tried := a[name]; !tried || reason != "" {
				t.Errorf("with Landlock %d, %s: %q", abi, name, reason)
			}
		}
		for _, b := range bounds {
			if says := strings.Contains(a["missing"], b.says); b.says != "" && says != (abi < b.abi) {
				t.Errorf("with Landlock %d it says %q", abi, a["missing"])
			}
			if reason, tried := a[b.attempt]; tried && (reason != "") != (abi >= b.abi) {
				t.Errorf("with Landlock %d, %s: %q", abi, b.attempt, reason)
			}
		}
		if !strings.Contains(a["status"], "NoNewPrivs:\t1\n") || a["dumpable"] != "0" {
			t.Errorf("with Landlock %d the rest isn't done: dumpable %s, %s", abi, a["dumpable"], a["status"])
		}
	}
}

// A file where a directory should be, or a path that can't be followed, takes nothing from the other rules.
func TestARuleThatCanNotBeMadeLiftsNoOther(t *testing.T) {
	needLandlock(t, 1)
	c := stage(t)
	loop := filepath.Join(filepath.Dir(c.Inside), "loop")
	if err := os.Symlink(loop, loop); err != nil {
		t.Fatal(err)
	}
	c.Rules.Read = append(c.Rules.Read, c.WithSwap, loop, filepath.Join(c.Outside, "beneath-a-file"))
	a := run(t, c)
	if a["missing"] != "" || a["read inside"] != "" || !strings.Contains(a["read outside"], "permission denied") {
		t.Errorf("missing %q; inside %q, outside %q", a["missing"], a["read inside"], a["read outside"])
	}
}
