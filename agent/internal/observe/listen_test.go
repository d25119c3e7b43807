package observe

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/agent/internal/slowtest"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

const (
	// soon is when a probe must have its answer: the least that a kubelet waits for.
	soon = time.Second
	// cut is when whoever sends too slowly must have been cut off: the server's bound, and some for a busy machine.
	cut = 5 * time.Second
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served serves h, or what the agent does if it is nil, until the test ends.
func served(t *testing.T, h http.Handler) (address string, stop func()) {
	t.Helper()
	if h == nil {
		f := facts(turn.Status{Files: []turn.FileStatus{good}})
		h = Handler(f.Status, Registry(f))
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, h) }()
	ended := false
	stop = func() {
		if ended {
			return
		}
		ended = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// probe asks once over a connection of its own and returns the status, 0 if there is no answer soon.
func probe(t *testing.T, address, request string) int {
	t.Helper()
	c := slowtest.Dial(t, "tcp", address, request)
	c.SetReadDeadline(time.Now().Add(soon))
	response, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Logf("no answer: %v", err)
		return 0
	}
	response.Body.Close()
	return response.StatusCode
}

const livez = "GET /livez HTTP/1.1\r\nHost: agent\r\n\r\n"

// A connection costs its owner nothing, so a hundred of them may not keep a probe from its answer.
func TestAProbeGetsThroughACrowd(t *testing.T) {
	for what, first := range map[string]string{
		"who say nothing":             "",
		"who send half a header":      "GET /livez HTTP/1.1\r\nHo",
		"who have asked and stay":     livez,
		"who send no body":            "POST /livez HTTP/1.1\r\nHost: agent\r\nContent-Length: 9\r\n\r\n",
		"who ask and send no body":    "GET /livez HTTP/1.1\r\nHost: agent\r\nContent-Length: 9\r\n\r\n",
		"who ask for all and read it": "GET /metrics HTTP/1.1\r\nHost: agent\r\n\r\n",
	} {
		t.Run(what, func(t *testing.T) {
			address, _ := served(t, nil)
			var all []net.Conn
			for range 3 * connections {
				all = append(all, slowtest.Dial(t, "tcp", address, first))
			}
			if status := probe(t, address, livez); status != http.StatusOK {
				t.Errorf("a probe is answered with %d", status)
			}
			for i, c := range all[:2*connections] {
				if !slowtest.IsCut(t, c, soon) {
					t.Fatalf("connection %d of %d is still held", i+1, len(all))
				}
			}
		})
	}
}

// Those within the bound are left alone for as long as they may take.
func TestACrowdWithinTheBoundIsNotCut(t *testing.T) {
	address, _ := served(t, nil)
	var all []net.Conn
	for range connections / 2 {
		all = append(all, slowtest.Dial(t, "tcp", address, "GET /livez HTTP/1.1\r\n"))
	}
	for range connections { // each takes a place and gives it back
		if status := probe(t, address, livez); status != http.StatusOK {
			t.Errorf("a probe is answered with %d", status)
		}
	}
	for _, c := range all {
		if _, err := io.WriteString(c, "Host: agent\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("no answer to who took a moment: %v", err)
		}
	}
}

func TestWhoIsSlowIsCutOff(t *testing.T) {
	address, _ := served(t, nil)
	endless, _ := served(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for piece, err := make([]byte, 1<<20), error(nil); err == nil; {
			_, err = w.Write(piece)
		}
	}))
	began := time.Now()
	clients := map[string]net.Conn{"reads nothing": slowtest.Dial(t, "tcp", endless, livez)}
	for what, first := range map[string]string{
		"says nothing":              "",
		"sends half a header":       "GET /livez HT",
		"sends a header bit by bit": "GET /livez HTTP/1.1\r\n",
		"sends half a body":         "POST /readyz HTTP/1.1\r\nHost: agent\r\nContent-Length: 9\r\n\r\nha",
	} {
		clients[what] = slowtest.Dial(t, "tcp", address, first)
	}
	for tick := time.NewTicker(100 * time.Millisecond); time.Since(began) < cut; <-tick.C {
		if _, err := io.WriteString(clients["sends a header bit by bit"], "A: b\r\n"); err != nil {
			break
		}
	}
	for what, c := range clients {
		if what != "reads nothing" && !slowtest.IsCut(t, c, cut-time.Since(began)) {
			t.Errorf("who %s is still connected after %v", what, cut)
		}
	}
	<-time.After(5500*time.Millisecond - time.Since(began))
	if !slowtest.IsCut(t, clients["reads nothing"], time.Second) { // what was under way is all that comes
		t.Error("who reads nothing is still written to")
	}
}

// Nobody holds a place between two questions.
func TestAConnectionIsGoodForOneRequest(t *testing.T) {
	address, _ := served(t, nil)
	if !slowtest.IsCut(t, slowtest.Dial(t, "tcp", address, livez), soon) {
		t.Error("who has asked is still connected")
	}
}

func TestWhatIsTooLargeIsRefused(t *testing.T) {
	address, _ := served(t, nil)
	if status := probe(t, address, "GET /livez HTTP/1.1\r\nHost: agent\r\nA: "+strings.Repeat("x", 16<<10)+"\r\n\r\n"); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 16 KiB is answered with %d", status)
	}
	if status := probe(t, address, livez); status != http.StatusOK {
		t.Errorf("a probe is answered with %d", status)
	}
}

// net/http would answer this by itself, with 200.
func TestOptionsOfTheServerAreNotServed(t *testing.T) {
	address, _ := served(t, nil)
	if status := probe(t, address, "OPTIONS * HTTP/1.1\r\nHost: agent\r\n\r\n"); status < 400 || status > 499 {
		t.Errorf("OPTIONS * is answered with %d", status)
	}
}

func TestTheEndWaitsForNoSlowClient(t *testing.T) {
	address, stop := served(t, nil)
	for _, first := range []string{"", "GET /livez HT", "POST /livez HTTP/1.1\r\nHost: agent\r\nContent-Length: 9\r\n\r\n"} {
		slowtest.Dial(t, "tcp", address, first)
	}
	if status := probe(t, address, livez); status != http.StatusOK {
		t.Errorf("a probe is answered with %d", status)
	}
	began := time.Now()
	stop()
	if took := time.Since(began); took > farewell+time.Second {
		t.Errorf("the end took %v", took)
	}
}
