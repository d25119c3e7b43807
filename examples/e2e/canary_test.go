package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/keyturn/keyturn/examples/leaktest"
)

// nothingLeaked searches all that has come out of agent and app for every secret that there was.
func (w *world) nothingLeaked() {
	w.t.Helper()
	for _, leak := range w.leaks(w.output()) {
		w.t.Error(leak)
	}
	if n := w.gemini.KeysInURLs(); n != 0 {
		w.t.Errorf("%d requests to Gemini had a key in their URL", n)
	}
}

// leaks returns which secrets stand in out, where and in which form: keys, credentials, and the tokens that were given for them.
func (w *world) leaks(out map[string]string) (found []string) {
	for where, text := range out {
		for i, secret := range slices.Concat(w.secrets, w.front.given()) {
			if form, is := leaktest.Find(text, secret); is {
				found = append(found, fmt.Sprintf("secret %d stands in %s, as %s", i+1, where, form))
			}
		}
	}
	return found
}

// output returns everything that agent and app show to others.
func (w *world) output() map[string]string {
	w.t.Helper()
	out := map[string]string{"what ended processes left": w.said.String(), "the URLs that Vault got": w.front.seen()}
	for name, p := range map[string]*process{"agent": w.agent.process, "app": w.app} {
		out["what the "+name+" printed"] = p.stderr.String()
		onlyJSON(w.t, name, p.stderr.String())
		out["the "+name+"'s environ and argv"] = p.environ(w.t)
	}
	for _, url := range []string{w.agent.url + "/readyz", w.agent.url + "/livez", w.agent.url + "/metrics",
		w.appURL + "/readyz", w.appURL + "/livez", w.appURL + "/metrics", w.appURL + "/status", w.appURL + "/nowhere"} {
		out[url] = string(show(w.t, patient, http.MethodGet, url, ""))
	}
	for body, what := range map[string]string{"{": "no JSON", `{"prompt":""}`: "no prompt", `{"prompt":"x","canary":1}`: "a field too many"} {
		out["the problem with "+what] = string(show(w.t, patient, http.MethodPost, w.appURL+"/v1/generate", body))
	}
	if w.uid == 0 { // the socket answers the agent's own user alone
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(w.dir, "agent.sock"))
		}
		socket := &http.Client{Timeout: patience, Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
		out["the agent's status"] = string(show(w.t, socket, http.MethodGet, "http://agent/status", ""))
	}
	return out
}

var patient = &http.Client{Timeout: patience}

// show returns an answer, with its headers.
func show(t testing.TB, c *http.Client, method, url, body string) []byte {
	t.Helper()
	request := must[*http.Request](t)(http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body)))
	request.Header.Set("Content-Type", "application/json")
	response := must[*http.Response](t)(c.Do(request))
	defer response.Body.Close()
	var all bytes.Buffer
	response.Header.Write(&all)
	must[int64](t)(io.Copy(&all, response.Body))
	return all.Bytes()
}

// environ returns the environment and the arguments of a running process, as others see them.
func (p *process) environ(t testing.TB) (all string) {
	t.Helper()
	for _, what := range []string{"environ", "cmdline"} {
		all += string(must[[]byte](t)(os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.cmd.Process.Pid, what))))
	}
	return all
}

// end notes what a process has shown, and ends it.
func (w *world) end(p *process) {
	if p.runs() {
		w.said.WriteString(p.environ(w.t))
	}
	p.kill()
	w.said.WriteString(p.stderr.String())
}

// crash makes agent and app crash, and searches the traces of all their goroutines.
func (w *world) crash() {
	w.t.Helper()
	traces := map[string]string{}
	for name, p := range map[string]*process{"agent": w.agent.process, "app": w.app} {
		p.signal(syscall.SIGABRT)
		p.exit(w.t)
		traces["the trace of the "+name] = p.stderr.String()
		if !strings.Contains(p.stderr.String(), "goroutine 1 ") {
			w.t.Errorf("the %s left no trace of its goroutines:\n%s", name, p.stderr.String())
		}
	}
	for _, leak := range w.leaks(traces) {
		w.t.Error(leak)
	}
}

// The search for leaks is only worth as much as the places that it looks at: in each of them it finds something that must be
// there, once that is said to be a secret.
func TestTheSearchForLeaksLooksWhereThingsComeOut(t *testing.T) {
	w := newWorld(t, setting{appRole: true})
	w.startAgent()
	w.agent.ready(t)
	w.startApp()
	w.serves()
	w.end(w.app)
	w.startApp()
	w.serves()
	w.nothingLeaked()
	if n := len(w.front.given()); n != 1 {
		t.Errorf("%d tokens are known to be secret, want the one that the agent got for logging in", n)
	}
	out := w.output()
	markers := map[string]string{
		"the URLs that Vault got":           w.secret,
		"what ended processes left":         "APP_LOG_LEVEL=debug",
		"what the agent printed":            w.dir,
		"what the app printed":              w.path(),
		"the agent's environ and argv":      "AGENT_POLL_INTERVAL=1s",
		"the app's environ and argv":        "APP_LISTEN=127.0.0.1",
		"the agent's status":                `"version_stored":"1"`,
		"the problem with no JSON":          "application/problem+json",
		"the problem with no prompt":        "about:blank",
		"the problem with a field too many": "Bad Request",
		w.agent.url + "/readyz":             w.file,
		w.agent.url + "/livez":              "Content-Length",
		w.agent.url + "/metrics":            "keyturn_agent_file_in_step",
		w.appURL + "/readyz":                "Content-Length",
		w.appURL + "/livez":                 "Content-Length",
		w.appURL + "/metrics":               "keyturn_app_requests_total",
		w.appURL + "/status":                "generation",
		w.appURL + "/nowhere":               "application/problem+json",
	}
	for where := range out {
		if markers[where] == "" {
			t.Errorf("nothing is known that must be found in %s", where)
		}
	}
	for where, marker := range markers {
		w.secrets = []string{marker}
		if !slices.ContainsFunc(w.leaks(out), func(leak string) bool { return strings.Contains(leak, " stands in "+where+",") }) {
			t.Errorf("%q isn't found in %s:\n%s", marker, where, out[where])
		}
	}
	w.secrets = []string{"goroutine 1 "}
	w.agent.signal(syscall.SIGABRT)
	w.agent.exit(t)
	if len(w.leaks(map[string]string{"trace": w.agent.stderr.String()})) == 0 {
		t.Error("the search doesn't find what stands in a trace")
	}
}
