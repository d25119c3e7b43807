package e2e

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// notConfined is the message of the one line that says what is missing.
const notConfined = "the agent is not confined in every way"

func (p *process) notConfinedLines() int {
	return p.count(func(l logged) bool { return l.Msg == notConfined })
}

// Nothing is sent to the agent before it has been seen confined: its first connection is looked at before it is answered.
func TestTheAgentIsConfinedBeforeItReadsFromTheNetwork(t *testing.T) {
	vault := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	defer vault.Close()
	a := startAgent(t, filepath.Join(memory(t), "keys"), []string{
		"VAULT_ADDR=http://" + vault.Addr().String(), "AGENT_TOKEN_FILE=" + file(t, newValue()), "AGENT_CONFINE=require", entries("key=x")})
	conn := must[net.Conn](t)(vault.Accept())
	defer conn.Close()
	a.assertPowerless(t)
}

func TestACredentialDirectoryThatComesLateIsNamedAndStaysClosed(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	late := filepath.Join(t.TempDir(), "late")
	token := filepath.Join(late, "token")
	dir := filepath.Join(memory(t), "keys")
	environ := append(reach(v), "AGENT_TOKEN_FILE="+token, entries("key="+secret))
	a := startAgent(t, dir, append(environ, "AGENT_CONFINE=require"))
	if code := a.exit(t); code != 2 || !strings.Contains(a.stderr.String(), "AGENT_TOKEN_FILE leads into "+late+", which is missing") {
		t.Errorf("required: exit code %d, %s", code, a.stderr)
	}

	a = startAgent(t, dir, environ).started(t)
	if n := a.notConfinedLines(); n != 1 || !strings.Contains(a.stderr.String(), "AGENT_TOKEN_FILE leads into "+late+", which is missing and would stay closed") {
		t.Errorf("%d lines, want one that names variable and directory:\n%s", n, a.stderr)
	}
	a.failures(t, "unauthenticated", 1)
	mkdir(t, late, 0o700)
	rewrite(t, token, newToken(t, v, allow(t, v, unique(), secret)))
	eventually(t, "a reason that names the confinement", func() bool {
		return a.count(func(l logged) bool {
			return strings.Contains(l.Reason, "a confined agent reads only in the directories that it found")
		}) == 1
	})
	if code := a.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	a = startAgent(t, dir, append(environ, "AGENT_CONFINE=require")).started(t).ready(t)
	assertRendered(t, a.path("key"), value)
}

func TestAConfinedAgentReadsCertificatesWhereverTheyLead(t *testing.T) {
	v := tlsVault(t)
	secret, _ := newSecret(t, v)
	token := tokenFile(t, v, allow(t, v, unique(), secret))
	authority := string(must[[]byte](t)(os.ReadFile(v.CACert)))
	elsewhere, linked := file(t, authority), t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(linked, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	for name, variable := range map[string]string{
		"a file as the directory":  "VAULT_CAPATH=" + elsewhere,
		"a directory with a link":  "VAULT_CAPATH=" + linked,
		"the system's, a link":     "SSL_CERT_FILE=" + filepath.Join(linked, "ca.pem"),
		"the system's directories": "SSL_CERT_DIR=" + linked,
	} {
		t.Run(name, func(t *testing.T) {
			a := startAgent(t, filepath.Join(memory(t), "keys"), []string{"VAULT_ADDR=" + v.Addr, variable, "AGENT_TOKEN_FILE=" + token,
				"AGENT_CONFINE=require", entries("key=" + secret)})
			a.started(t).ready(t)
		})
	}
}

// The zone of the log's times lies where a confined agent may not read.
func TestAConfinedAgentKeepsItsTimeZone(t *testing.T) {
	// One zone without changes (RFC 8536): a header with the counts of types and letters, an hour east of UTC, its name.
	zone := "TZif\x00" + strings.Repeat("\x00", 15) + strings.Repeat("\x00", 16) + "\x00\x00\x00\x01" + "\x00\x00\x00\x04" +
		"\x00\x00\x0e\x10\x00\x00" + "ONE\x00"
	a := startAgent(t, filepath.Join(memory(t), "keys"), []string{"TZ=" + file(t, zone), "VAULT_ADDR=" + silent(t),
		"AGENT_TOKEN_FILE=" + file(t, newValue()), "AGENT_CONFINE=require", entries("key=x")}).started(t)
	if out := a.stderr.String(); !strings.Contains(out, "+01:00") || strings.Contains(out, `Z"`) {
		t.Errorf("the log is in another zone:\n%s", out)
	}
}

// A kernel, or a container's seccomp profile, that knows no Landlock or forbids another step takes nothing from the rest.
func TestAnAgentThatCanNotConfineItselfInEveryWaySaysSoOnceAndDoesTheRest(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	environ := append(reach(v), "AGENT_TOKEN_FILE="+tokenFile(t, v, allow(t, v, unique(), secret)), entries("key="+secret))
	for name, c := range map[string]struct {
		without string
		says    string
		silent  string
	}{
		"no Landlock":   {"landlock", "files aren't confined (it takes Landlock 1: Linux 5.13)", "core file"},
		"no setrlimit":  {"setrlimit", "a core file may be left (operation not permitted)", "Landlock"},
		"none of these": {"landlock,setrlimit", "signals and abstract sockets aren't confined", "capabilities are"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(memory(t), "keys")
			a := startAgent(t, dir, environ, without(t, c.without)).started(t).ready(t)
			assertRendered(t, a.path("key"), value)
			out := a.stderr.String()
			if n := a.notConfinedLines(); n != 1 || !strings.Contains(out, c.says) || strings.Contains(out, c.silent) {
				t.Errorf("%d lines, want one that says %q and not %q:\n%s", n, c.says, c.silent, out)
			}
			a.assertPowerless(t)
			a.kill()
			a = startAgent(t, dir, append(environ, "AGENT_CONFINE=require"), without(t, c.without))
			if code := a.exit(t); code != 1 || !strings.Contains(a.stderr.String(), "AGENT_CONFINE=require, and ") || !strings.Contains(a.stderr.String(), c.says) {
				t.Errorf("required: exit code %d, %s", code, a.stderr)
			}
		})
	}
}

// withoutVariable names what the kernel shall refuse to the program that this binary then becomes.
const withoutVariable = "KEYTURN_WITHOUT"

// without starts a command under a kernel that refuses some system calls.
func without(t *testing.T, calls string) func(*exec.Cmd) {
	self := must[string](t)(os.Executable())
	return func(c *exec.Cmd) {
		c.Env = append(c.Env, withoutVariable+"="+calls)
		c.Args = append([]string{self, c.Path}, c.Args[1:]...)
		c.Path = self
	}
}

func init() {
	calls := os.Getenv(withoutVariable)
	if calls == "" {
		return
	}
	os.Unsetenv(withoutVariable)
	runtime.LockOSThread() // the filter is this thread's, and execve keeps it
	err := refuse(strings.Split(calls, ","))
	if err == nil {
		err = syscall.Exec(os.Args[1], os.Args[1:], os.Environ())
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// refuse makes the kernel refuse system calls to this thread and what it executes (seccomp(2)).
func refuse(calls []string) error {
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the number of the call
	for _, call := range calls {
		number, errno := uint32(unix.SYS_LANDLOCK_CREATE_RULESET), unix.ENOSYS
		if call == "setrlimit" {
			number, errno = unix.SYS_PRLIMIT64, unix.EPERM
		}
		filter = append(filter, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: number},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	program := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if os.Geteuid() != 0 {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return err
		}
	}
	return unix.Prctl(unix.PR_SET_SECCOMP, unix.SECCOMP_MODE_FILTER, uintptr(unsafe.Pointer(&program)), 0, 0)
}
