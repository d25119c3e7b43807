package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// agent is a running keyturn-agent.
type agent struct {
	*process
	dir string // where it renders
	url string // of its probes; set by started
}

// startAgent starts an agent that renders to dir, reads every 200 ms and listens on a free port. environ is added, and goes
// before what is set here.
func startAgent(t testing.TB, dir string, environ []string, options ...func(*exec.Cmd)) *agent {
	t.Helper()
	base := []string{"HOME=/nonexistent", "AGENT_DIR=" + dir, "AGENT_LISTEN=127.0.0.1:0", "AGENT_VALIDATE=off", "AGENT_POLL_INTERVAL=200ms"}
	return &agent{process: start(t, ours.build(t, "agent"), append(base, environ...), options...), dir: dir}
}

// newAgent starts an agent with a directory and a token of its own. secrets are the entries of AGENT_SECRETS, as FILE=NAME:
// the field k of secret/NAME.
func newAgent(t testing.TB, addr []string, token string, secrets ...string) *agent {
	t.Helper()
	return startAgent(t, filepath.Join(memory(t), "keys"), append([]string{entries(secrets...), "AGENT_TOKEN_FILE=" + token}, addr...)).started(t)
}

func entries(secrets ...string) string {
	var all []string
	for _, s := range secrets {
		file, name, _ := strings.Cut(s, "=")
		all = append(all, file+"=secret/"+name+"#k")
	}
	return "AGENT_SECRETS=" + strings.Join(all, ",")
}

// started waits until the agent has started, which it does before it has read anything.
func (a *agent) started(t testing.TB) *agent {
	t.Helper()
	a.url = "http://" + a.awaitLine(t, "started").Listen
	return a
}

// ready waits until every file is rendered.
func (a *agent) ready(t testing.TB) *agent {
	t.Helper()
	eventually(t, "the agent is ready", func() bool { return a.readyz(t).status == http.StatusOK })
	return a
}

func (a *agent) path(file string) string { return filepath.Join(a.dir, file) }

// readiness is what /readyz answers.
type readiness struct {
	status int
	Ready  bool
	Files  []struct {
		File, Version string
		Rendered      bool
		Waits         string `json:"waits_for"`
	}
}

func (a *agent) readyz(t testing.TB) readiness {
	t.Helper()
	status, body := get(t, a.url+"/readyz")
	r := readiness{status: status}
	if err := json.Unmarshal(body, &r); err != nil {
		t.Fatalf("/readyz: %v", err)
	}
	return r
}

// waits returns what file waits for, as /readyz says.
func (a *agent) waits(t testing.TB, file string) string {
	t.Helper()
	for _, f := range a.readyz(t).Files {
		if f.File == file {
			return f.Waits
		}
	}
	t.Fatalf("/readyz doesn't name %s", file)
	return ""
}

// metric returns a metric's value, and whether it is there. labels are as in the text format: file="x".
func (a *agent) metric(t testing.TB, name, labels string) (value float64, found bool) {
	t.Helper()
	_, body := get(t, a.url+"/metrics")
	if labels != "" {
		name += "{" + labels + "}"
	}
	for line := range strings.Lines(string(body)) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return must[float64](t)(strconv.ParseFloat(strings.TrimSpace(rest), 64)), true
		}
	}
	return 0, false
}

// reads waits until the store has been read n more times for file, each with success.
func (a *agent) reads(t testing.TB, file string, n int) {
	t.Helper()
	last, _ := a.metric(t, "keyturn_agent_store_read_timestamp_seconds", fmt.Sprintf("file=%q", file))
	eventually(t, "further reads of "+file, func() bool {
		if at, _ := a.metric(t, "keyturn_agent_store_read_timestamp_seconds", fmt.Sprintf("file=%q", file)); at > last {
			last = at
			n--
		}
		return n <= 0
	})
}

// failures waits until n more reads have failed for that reason.
func (a *agent) failures(t testing.TB, reason string, n int) {
	t.Helper()
	labels := fmt.Sprintf("reason=%q", reason)
	before, _ := a.metric(t, "keyturn_agent_store_read_failures_total", labels)
	eventually(t, fmt.Sprintf("%d failed reads: %s", n, reason), func() bool {
		now, _ := a.metric(t, "keyturn_agent_store_read_failures_total", labels)
		return now >= before+float64(n)
	})
}

// get asks a probe, and wants no secret in the answer.
func get(t testing.TB, url string) (status int, body []byte) {
	t.Helper()
	response := must[*http.Response](t)(patient.Get(url))
	defer response.Body.Close()
	body = must[[]byte](t)(io.ReadAll(response.Body))
	if bytes.Contains(body, []byte(canary)) {
		t.Errorf("%s answers with a secret", url)
	}
	return response.StatusCode, body
}

// silent returns the URL of a server that takes connections and answers nothing.
func silent(t testing.TB) string {
	t.Helper()
	l := must[net.Listener](t)(net.Listen("tcp", "127.0.0.1:0"))
	t.Cleanup(func() { l.Close() })
	return "http://" + l.Addr().String()
}
