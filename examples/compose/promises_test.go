//go:build compose

package compose

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
)

// lockedDown is what the kernel must say of every process that holds the key or Vault's credentials.
var lockedDown = map[string]string{
	"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000",
	"CapBnd": "0000000000000000", "CapAmb": "0000000000000000", "NoNewPrivs": "1", "Seccomp": "2",
}

func promises(t *testing.T, s *stack) {
	for service, user := range map[string]string{"vault": "100 1000", "agent": "65532 65532", "app": "65532 65532", "gemini": "65532 65532"} {
		c := s.container(t, service)
		status := processStatus(t, c.State.Pid)
		if got := strings.Join([]string{status["Uid"], status["Gid"]}, " "); got != user {
			t.Errorf("%s runs as %s, not as %s", service, got, user)
		}
		for field, want := range lockedDown {
			if status[field] != want {
				t.Errorf("%s: %s is %s, must be %s", service, field, status[field], want)
			}
		}
		if root := mountOf(t, c.State.Pid, "/"); !slices.Contains(root.options, "ro") {
			t.Errorf("%s can write to its root filesystem: %v", service, root.options)
		}
		limits := s.e.docker(t, "inspect", "-f", "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}} {{.HostConfig.Privileged}}", c.ID)
		if strings.HasPrefix(limits, "0 ") || strings.Contains(limits, " 0 ") || !strings.HasSuffix(limits, " false") {
			t.Errorf("%s has the limits %q", service, limits)
		}
	}
	wantTmpfs(t, s, "agent", "/run/keyturn/keys", "rw", "size=1024k", "mode=700", "uid=65532", "gid=65532", "noswap")
	wantTmpfs(t, s, "app", "/run/keyturn/keys", "ro", "size=1024k", "mode=700", "uid=65532", "gid=65532", "noswap")
	wantTmpfs(t, s, "agent", "/run/keyturn/credentials", "ro", "mode=750", "uid=100", "gid=65532", "noswap")
	wantTmpfs(t, s, "vault", "/run/keyturn/credentials", "ro", "mode=750", "noswap")
	wantTmpfs(t, s, "vault", "/run/vault", "rw", "mode=700", "uid=100", "noswap")
	for service, paths := range map[string][]string{"app": {"/run/keyturn/credentials", "/run/vault"}, "agent": {"/run/vault"}} {
		for _, path := range paths {
			if m := mountOf(t, s.container(t, service).State.Pid, path); m.kind != "" {
				t.Errorf("%s is mounted into %s", path, service)
			}
		}
	}
	if mode := strings.Fields(s.inside(t, "agent", "ls -ln /run/keyturn/keys/gemini-api-key")); mode[0] != "-rw-------" || mode[2] != "65532" {
		t.Errorf("the key's file: %v", mode)
	}
}

// inside runs a command of busybox's as root in the filesystem of a service's container, which has no shell of its own.
func (s *stack) inside(t *testing.T, service, command string) string {
	t.Helper()
	return s.e.docker(t, "run", "--rm", "--network=none", "--volumes-from", s.container(t, service).ID, "--entrypoint", "/bin/sh",
		strings.TrimPrefix(theBases(t)[1], "VAULT_IMAGE="), "-c", command)
}

// processStatus returns the fields of /proc/PID/status, of several values the effective one.
func processStatus(t *testing.T, pid int) map[string]string {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	fields := map[string]string{}
	for line := range strings.Lines(string(content)) {
		name, values, _ := strings.Cut(line, ":")
		all := append(strings.Fields(values), "")
		fields[name] = all[0]
		if name == "Uid" || name == "Gid" {
			fields[name] = all[1]
		}
	}
	return fields
}

// mount is one line of a process's mountinfo.
type mount struct {
	kind    string   // of filesystem; empty: nothing is mounted there
	options []string // of the mount and of the filesystem
}

func mountOf(t *testing.T, pid int, path string) mount {
	t.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		t.Fatal(err)
	}
	var last mount // a later one lies over it
	for line := range strings.Lines(string(content)) {
		own, filesystem, _ := strings.Cut(line, " - ")
		o, f := strings.Fields(own), strings.Fields(filesystem)
		if len(o) > 5 && len(f) > 2 && o[4] == path {
			last = mount{f[0], slices.Concat(strings.Split(o[5], ","), strings.Split(f[2], ","))}
			if slices.Contains(strings.Split(o[5], ","), "ro") {
				last.options = slices.DeleteFunc(last.options, func(option string) bool { return option == "rw" })
			}
		}
	}
	return last
}

func wantTmpfs(t *testing.T, s *stack, service, path string, options ...string) {
	t.Helper()
	m := mountOf(t, s.container(t, service).State.Pid, path)
	if m.kind != "tmpfs" {
		t.Errorf("%s of %s is %q, not a tmpfs", path, service, m.kind)
	}
	for _, option := range options {
		if !slices.Contains(m.options, option) {
			t.Errorf("%s of %s has the options %v, without %s", path, service, m.options, option)
		}
	}
}

// The agent reaches Vault and the app doesn't, from the network that each is in, by name and by every address.
func isolation(t *testing.T, s *stack) {
	vault := s.container(t, "vault")
	for name, network := range vault.NetworkSettings.Networks {
		if !strings.HasSuffix(name, "_vault") {
			t.Errorf("Vault is on the network %s", name)
		}
		if err := s.reaches(t, "agent", network.IPAddress); err != nil {
			t.Errorf("the agent doesn't reach Vault, so that this test shows nothing: %v", err)
		}
		if s.reaches(t, "app", network.IPAddress) == nil {
			t.Errorf("the app reaches Vault at %s", network.IPAddress)
		}
	}
	if err := s.reaches(t, "agent", "vault"); err != nil {
		t.Error(err)
	}
	if s.reaches(t, "app", "vault") == nil {
		t.Error("the app reaches Vault by its name")
	}
	if published := s.e.docker(t, "port", vault.ID); published != "" {
		t.Errorf("Vault is published at %s", published)
	}
}

// reaches asks host for Vault's health from the network of a service. The shell stays, since a first process is not
// ended by a signal of timeout's.
func (s *stack) reaches(t *testing.T, service, host string) error {
	t.Helper()
	_, err := s.e.run(t.Context(), nil, "docker", "run", "--rm", "--network=container:"+s.container(t, service).ID, "--entrypoint", "/bin/sh",
		strings.TrimPrefix(theBases(t)[1], "VAULT_IMAGE="), "-c", "timeout 3 wget -q -O /dev/null http://"+host+":8200/v1/sys/health || exit 1")
	return err
}

// noKeyShows looks for every key that there has been in all that the engine and the kernel show of the containers. That
// the search finds something it shows with the text of a log line and the name of a variable.
func noKeyShows(t *testing.T, s *stack) {
	var shown strings.Builder
	for _, service := range []string{"vault", "vault-init", "agent", "app", "gemini"} {
		c := s.container(t, service)
		shown.WriteString(s.e.docker(t, "inspect", c.ID))
		said, err := s.logs(t.Context(), service)
		if err != nil {
			t.Fatal(err)
		}
		shown.WriteString(said)
		if c.State.Pid == 0 {
			continue
		}
		for _, file := range []string{"environ", "cmdline"} {
			content, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", c.State.Pid, file))
			if err != nil {
				t.Fatal(err)
			}
			shown.Write(content)
		}
	}
	for _, there := range []string{"swapped the key", "AGENT_AUTH=approle", "keyturn-agent"} {
		if !strings.Contains(shown.String(), there) {
			t.Errorf("the search doesn't even find %q", there)
		}
	}
	if len(s.keys) < 5 {
		t.Errorf("there were only %d keys", len(s.keys))
	}
	for i, key := range s.keys {
		for _, form := range []string{key, strings.TrimPrefix(key, "local-"), base64.StdEncoding.EncodeToString([]byte(key)), hex.EncodeToString([]byte(key))} {
			if strings.Contains(shown.String(), form) {
				t.Errorf("key %d shows", i+1)
			}
		}
	}
}

// A kernel before 6.4 knows no noswap; README says what to set then.
func TestNoswapCanBeDropped(t *testing.T) {
	e := theEngine(t)
	for _, compose := range available(t, e) {
		for setting, want := range map[string]int{"COMPOSE_PROJECT_NAME=keyturn": 3, "KEYTURN_NOSWAP=": 0} {
			out, err := e.run(t.Context(), []string{setting}, "sh", "-c", compose+" -f docker-compose.yml config")
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Count(out, "noswap"); got != want {
				t.Errorf("%s with %s: %d volumes have noswap, want %d", compose, setting, got, want)
			}
		}
	}
}
