package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/examples/logtest"
	"github.com/keyturn/keyturn/examples/porttest"
)

// asCommand makes the test binary behave as the agent does, for what only a process can show.
const asCommand = "KEYTURN_AGENT_TEST_AS_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

// command runs the agent's command line within this process.
func command(t testing.TB, ctx context.Context, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, err logtest.Page
	code = exitCode(run(ctx, args, os.Environ(), &out, &err), &err)
	return code, out.String(), err.String()
}

// nowhere is a configuration with a directory in memory and a Vault that nobody runs.
func nowhere(t testing.TB) (dir string, variables map[string]string) {
	t.Helper()
	parent, err := os.MkdirTemp("/dev/shm", "keyturn-agent-")
	if err != nil {
		t.Fatalf("these tests need a tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() { os.RemoveAll(parent) })
	dir = filepath.Join(parent, "keys")
	return dir, map[string]string{"AGENT_DIR": dir, "AGENT_CONFINE": "off", "AGENT_LISTEN": "127.0.0.1:0", "AGENT_TOKEN_FILE": "/nonexistent",
		"VAULT_ADDR": "http://127.0.0.1:1", "AGENT_VALIDATE": "off", "AGENT_LOG_LEVEL": "debug"}
}

// leaveBehind puts a file into dir as an agent before this one would have.
func leaveBehind(t testing.TB, dir, content string) (path string) {
	t.Helper()
	path = filepath.Join(dir, "gemini-api-key")
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(path, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
	return path
}

// started runs an agent within this process until stop, which returns its exit code and what it logged.
func started(t testing.TB, variables map[string]string) (stop func() (code int, logged string)) {
	t.Helper()
	environ := environment(t, variables)
	ctx, cancel := context.WithCancel(context.Background())
	var logs logtest.Page
	code := make(chan int, 1)
	go func() { code <- exitCode(run(ctx, nil, environ, io.Discard, &logs), &logs) }()
	stop = sync.OnceValues(func() (int, string) {
		cancel()
		return <-code, logs.String()
	})
	t.Cleanup(func() { stop() })
	socket := filepath.Join(variables["AGENT_DIR"], socketName)
	deadline := time.After(10 * time.Second)
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			return stop
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("the agent doesn't start:\n%s", logs.String())
		}
	}
}

func TestTheCommandLine(t *testing.T) {
	environment(t, nil)
	for _, c := range []struct {
		args   string
		code   int
		stdout string
		stderr string
	}{
		{"-h", exitDone, "usage: keyturn-agent [command]", ""},
		{"--help", exitDone, "AGENT_SECRETS", ""},
		{"help", exitDone, "Exit codes", ""},
		{"version", exitDone, "keyturn-agent devel ", ""},
		{"--version", exitDone, runtime.Version(), ""},
		{"render", exitUsage, "", "there is no such command: see keyturn-agent -h"},
		{"-json", exitUsage, "", "there is no such command"},
		{canary, exitUsage, "", "there is no such command"},
		{"run now", exitUsage, "", "run doesn't take these arguments: see keyturn-agent -h"},
		{"status -xml", exitUsage, "", "status doesn't take these arguments"},
		{"status -json -json", exitUsage, "", "status doesn't take these arguments"},
		{"health -json", exitUsage, "", "health doesn't take these arguments"},
	} {
		code, stdout, stderr := command(t, t.Context(), strings.Fields(c.args)...)
		if code != c.code || !strings.Contains(stdout, c.stdout) || !strings.Contains(stderr, c.stderr) {
			t.Errorf("%s: exit code %d, want %d; stdout %.60q, stderr %q", c.args, code, c.code, stdout, stderr)
		}
		if (stdout == "") == (stderr == "") || strings.Contains(stderr, canary) {
			t.Errorf("%s: what was asked for belongs on stdout, what is wrong on stderr: %.60q, %q", c.args, stdout, stderr)
		}
	}
}

// A wrong command is named even where the configuration is wrong too, and help needs none.
func TestHelpNeedsNoConfiguration(t *testing.T) {
	environment(t, map[string]string{"AGENT_AUTH": "none"})
	if code, out, _ := command(t, t.Context(), "-h"); code != exitDone || out == "" {
		t.Errorf("-h: exit code %d", code)
	}
	if code, _, err := command(t, t.Context(), "rnu"); code != exitUsage || !strings.Contains(err, "no such command") {
		t.Errorf("a wrong command: exit code %d, %q", code, err)
	}
	if code, _, err := command(t, t.Context(), "run"); code != exitUsage || !strings.Contains(err, "AGENT_AUTH") {
		t.Errorf("run with a wrong configuration: exit code %d, %q", code, err)
	}
}

func TestAWrongConfigurationTouchesNothing(t *testing.T) {
	dir, variables := nowhere(t)
	for name, value := range map[string]string{"AGENT_POLL_INTERVAL": "soon", "VAULT_CACERT": "/nonexistent"} {
		variables[name] = value
	}
	environment(t, variables)
	code, stdout, stderr := command(t, t.Context())
	if code != exitUsage || stdout != "" || !strings.Contains(stderr, "AGENT_POLL_INTERVAL") || !strings.Contains(stderr, "VAULT_CACERT") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}

// Only who is told to stop wipes. An agent that can't start leaves the last good key of the one before it.
func TestAnAgentThatCannotStartLeavesTheFile(t *testing.T) {
	for what, spoil := range map[string]func(t *testing.T, dir string, variables map[string]string){
		"the port is taken": func(t *testing.T, _ string, variables map[string]string) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { l.Close() })
			variables["AGENT_LISTEN"] = l.Addr().String()
		},
		"the host is none of ours": func(_ *testing.T, _ string, variables map[string]string) {
			variables["AGENT_LISTEN"] = "192.0.2.1:9180"
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir, variables := nowhere(t)
			path := leaveBehind(t, dir, canary)
			spoil(t, dir, variables)
			environment(t, variables)
			code, _, stderr := command(t, t.Context())
			if code != exitFailed || strings.Contains(stderr, canary) || strings.Contains(stderr, variables["AGENT_LISTEN"]+":") {
				t.Errorf("exit code %d, %q", code, stderr)
			}
			if b, err := os.ReadFile(path); string(b) != canary {
				t.Errorf("the file holds %q, %v", b, err)
			}
		})
	}
}

// An agent that finds a key and no Vault is ready, says so everywhere, and at its end does what it was told with the key.
func TestAnAgentWithoutAVaultServesTheLastGoodKey(t *testing.T) {
	for onExit, kept := range map[string]bool{"": false, "wipe": false, "keep": true} {
		t.Run("on exit "+onExit, func(t *testing.T) {
			dir, variables := nowhere(t)
			path := leaveBehind(t, dir, canary)
			variables["AGENT_LISTEN"], variables["AGENT_ON_EXIT"] = porttest.Loopback(t), onExit
			stop := started(t, variables)
			if code, stdout, stderr := command(t, t.Context(), "health"); code != exitDone || stdout+stderr != "" {
				t.Errorf("health: %d %q %q", code, stdout, stderr)
			}
			code, table, _ := command(t, t.Context(), "status")
			if code != exitDone || !strings.Contains(table, "FILE") || !strings.Contains(table, "gemini-api-key") {
				t.Errorf("status: %d %q", code, table)
			}
			code, document, _ := command(t, t.Context(), "status", "-json")
			if code != exitDone || !strings.Contains(document, `"rendered":true`) || strings.Contains(table+document, canary) {
				t.Errorf("status -json: %d %q", code, document)
			}
			code, logged := stop()
			if code != exitDone || strings.Contains(logged, canary) || !strings.Contains(logged, `"msg":"stopped"`) {
				t.Errorf("exit code %d, logged\n%s", code, logged)
			}
			if _, err := os.Lstat(path); (err == nil) != kept {
				t.Errorf("after the end the file is %v", err)
			}
			if _, err := os.Lstat(filepath.Join(dir, socketName)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket stays behind: %v", err)
			}
		})
	}
}

func TestHealthSaysWhatIsWrong(t *testing.T) {
	_, variables := nowhere(t)
	variables["AGENT_LISTEN"] = porttest.Loopback(t)
	environment(t, variables)
	for _, name := range []string{"health", "status"} {
		code, stdout, stderr := command(t, t.Context(), name)
		if code != exitFailed || stdout != "" || !strings.Contains(stderr, "no agent answers") || !strings.Contains(stderr, "start it") {
			t.Errorf("%s without an agent: %d %q %q", name, code, stdout, stderr)
		}
	}
	started(t, variables)
	code, _, stderr := command(t, t.Context(), "health")
	if code != exitFailed || !strings.Contains(stderr, "not ready: gemini-api-key: ") {
		t.Errorf("an agent that waits: %d %q", code, stderr)
	}
}

// The status of somebody else's agent isn't told, and the sentence says under whom to ask.
func TestAnotherUserGetsNoStatus(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("starting a process of another uid needs root")
	}
	dir, variables := nowhere(t)
	started(t, variables)
	binary := filepath.Join(filepath.Dir(dir), "agent")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(binary, content, 0o755), os.Chmod(filepath.Dir(dir), 0o755)); err != nil {
		t.Fatal(err)
	}
	const nobody = 65534
	cmd := exec.CommandContext(t.Context(), binary, "status")
	cmd.Env = []string{asCommand + "=1", "AGENT_DIR=" + dir, "AGENT_TOKEN_FILE=/nonexistent"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	out, err := cmd.CombinedOutput()
	exit, _ := errors.AsType[*exec.ExitError](err)
	if exit == nil || exit.ExitCode() != exitFailed || !strings.Contains(string(out), "run this under its uid") {
		t.Errorf("uid %d: %v, %s", nobody, err, out)
	}
}
