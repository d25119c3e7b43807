package confine

import (
	"bytes"
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
	Rules                         Rules
	Inside, Outside, Writable     string
	OpenPort, ClosedPort          int
	Swap, WithSwap, ListenOutside string
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
	missing, err := Apply(c.Rules)
	note("apply", err)
	a["missing"] = strings.Join(missing, "; ")
	close(begin)
	for i := range 4 {
		note(fmt.Sprintf("read outside in thread %d", i), <-done)
	}
	c.tryFiles(note)
	c.tryNetwork(note)
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

func (c confined) tryNetwork(note func(string, error)) {
	dial := func(port int) error {
		conn, err := net.Dial("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			conn.Close()
		}
		return err
	}
	note("connect to an allowed port", dial(c.OpenPort))
	note("connect to another port", dial(c.ClosedPort))
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
	cmd.Env = append(os.Environ(), "KEYTURN_CONFINED="+string(text))
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
	for _, name := range []string{"apply", "read inside", "write where writing is allowed", "rename where writing is allowed",
		"remove where writing is allowed", "socket where writing is allowed", "connect to an allowed port", "read /proc/self/status",
		"read through a link that is allowed", "read through the swapped link"} {
		if reason, tried := a[name]; !tried || reason != "" {
			t.Errorf("%s: %q", name, reason)
		}
	}
	for _, name := range []string{"read outside", "read outside in thread 0", "read outside in thread 3", "write inside",
		"write outside", "write beside", "link where writing is allowed", "run a program", "connect to another port"} {
		if reason := a[name]; !strings.Contains(reason, "permission denied") {
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

func TestCredentialDirectoriesFollowLinksAndAreNarrow(t *testing.T) {
	root := t.TempDir()
	elsewhere := filepath.Join(root, "elsewhere")
	creds := filepath.Join(root, "creds")
	if err := errors.Join(os.Mkdir(elsewhere, 0o700), os.Mkdir(creds, 0o700),
		os.WriteFile(filepath.Join(elsewhere, "real"), nil, 0o600),
		os.Symlink(filepath.Join(elsewhere, "real"), filepath.Join(creds, "linked")),
		os.Symlink(creds, filepath.Join(root, "alias"))); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string][]string{
		filepath.Join(creds, "token"):             {creds},
		filepath.Join(creds, "linked"):            {creds, elsewhere},
		filepath.Join(root, "alias", "not-yet"):   {filepath.Join(root, "alias"), creds},
		filepath.Join(root, "missing", "not-yet"): {filepath.Join(root, "missing")},
	} {
		if got, err := Directories(file, "/home/nobody"); err != nil || strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("%s: %v, %v, want %v", file, got, err, want)
		}
	}
	for file, home := range map[string]string{"/token": "", filepath.Join(creds, "token"): creds, filepath.Join(creds, "linked"): elsewhere + "/"} {
		if dirs, err := Directories(file, home); !errors.Is(err, ErrTooWide) {
			t.Errorf("%s with home %q: %v, %v", file, home, dirs, err)
		}
	}
}
