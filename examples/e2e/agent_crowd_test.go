package e2e

import (
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/lagtest"
)

// Whoever reaches the listener may connect as often as they like. That costs the agent a bounded number of descriptors, and no
// probe its answer: a liveness probe that fails is an agent that is killed.
func TestACrowdAtTheListenerKeepsNoProbeFromItsAnswer(t *testing.T) {
	environ := []string{"VAULT_ADDR=http://127.0.0.1:1", "AGENT_TOKEN_FILE=/nonexistent/token"}
	a := startAgent(t, filepath.Join(memory(t), "keys"), environ).started(t)
	address := strings.TrimPrefix(a.url, "http://")
	before := a.descriptors(t)
	const many = 50
	for _, first := range []string{"", "GET /livez HT", "GET /livez HTTP/1.1\r\nHost: agent\r\n\r\n", "GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n"} {
		for range many {
			c := must[net.Conn](t)(net.Dial("tcp", address))
			defer c.Close()
			must[int](t)(io.WriteString(c, first))
		}
		clock := lagtest.Start(t)
		response := must[*http.Response](t)((&http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}).Get(a.url + "/livez"))
		response.Body.Close()
		if took := clock.Took(); response.StatusCode != http.StatusOK || took > time.Second {
			t.Errorf("with %d who %q: /livez is %d after %v", many, first, response.StatusCode, took)
		}
	}
	if n := a.descriptors(t); n > before+40 {
		t.Errorf("the agent has %d descriptors, %d before", n, before)
	}
	health := exec.CommandContext(t.Context(), ours.build(t, "agent"), "health")
	health.Env = []string{"AGENT_LISTEN=" + address}
	if out, _ := health.CombinedOutput(); !strings.Contains(string(out), "not ready: gemini-api-key: ") {
		t.Errorf("health says %q", out)
	}
}

// Others keep a connection for as long as they please, and ask again from time to time.
func TestClientsThatComeBackHoldNoPlace(t *testing.T) {
	environ := []string{"VAULT_ADDR=http://127.0.0.1:1", "AGENT_TOKEN_FILE=/nonexistent/token"}
	a := startAgent(t, filepath.Join(memory(t), "keys"), environ).started(t)
	before := a.descriptors(t)
	const clients = 40
	for range clients {
		client := &http.Client{Timeout: patience, Transport: &http.Transport{}}
		defer client.CloseIdleConnections()
		response := must[*http.Response](t)(client.Get(a.url + "/livez"))
		must[int64](t)(io.Copy(io.Discard, response.Body))
		response.Body.Close()
	}
	// An agent that has just started may open a few more of its own.
	eventually(t, "nobody is connected", func() bool { return a.descriptors(t) <= before+clients/4 })
}
