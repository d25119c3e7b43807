package observe

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/agent/internal/slowtest"
	"github.com/keyturn/keyturn/agent/internal/turn"
	"github.com/keyturn/keyturn/examples/pipetest"
)

const (
	// soon is when a probe must have its answer: the least that a kubelet waits for.
	soon = time.Second
	// cut is when whoever sends too slowly must have been cut off: the server's bound, and the half second that net/http waits
	// before it closes.
	cut = 4 * time.Second
	// patience is how long a test waits for what must come.
	patience = 20 * time.Second
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// served serves what the agent does until the test ends.
func served(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l, nil)
	return l.Addr().String()
}

// inBubble serves h, or what the agent does if it is nil, in a bubble of time until the test ends.
func inBubble(t *testing.T, h http.Handler) (address string, stop func()) {
	t.Helper()
	l := pipetest.Listen(t)
	return l.Address(), serve(t, l, h)
}

func serve(t *testing.T, l net.Listener, h http.Handler) (stop func()) {
	t.Helper()
	if h == nil {
		f := facts(turn.Status{Files: []turn.FileStatus{good}})
		h = Handler(f.Status, Registry(f))
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, h, slog.New(slog.DiscardHandler)) }()
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
	return stop
}

// probe asks once over a connection of its own and returns the status, 0 if there is no answer in time.
func probe(t *testing.T, address, request string, within time.Duration) int {
	t.Helper()
	c := slowtest.Dial(t, "tcp", address, request)
	c.SetReadDeadline(time.Now().Add(within))
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
			synctest.Test(t, func(t *testing.T) {
				address, _ := inBubble(t, nil)
				var all []net.Conn
				for range 3 * connections {
					all = append(all, slowtest.Dial(t, "tcp", address, first))
				}
				if status := probe(t, address, livez, soon); status != http.StatusOK {
					t.Errorf("a probe is answered with %d", status)
				}
				for i, c := range all[:2*connections] {
					if !slowtest.IsCut(t, c, time.Millisecond) {
						t.Fatalf("connection %d of %d is still held", i+1, len(all))
					}
				}
			})
		})
	}
}

// Those within the bound are left alone for as long as they may take.
func TestACrowdWithinTheBoundIsNotCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		address, _ := inBubble(t, nil)
		var all []net.Conn
		for range connections / 2 {
			all = append(all, slowtest.Dial(t, "tcp", address, "GET /livez HTTP/1.1\r\n"))
		}
		for range connections { // each takes a place and gives it back
			if status := probe(t, address, livez, soon); status != http.StatusOK {
				t.Errorf("a probe is answered with %d", status)
			}
			synctest.Wait()
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
	})
}

func TestWhoIsSlowIsCutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		address, _ := inBubble(t, nil)
		given := make(chan struct{})
		endless, _ := inBubble(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for piece, err := make([]byte, 1<<20), error(nil); err == nil; {
				_, err = w.Write(piece)
			}
			close(given)
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
		<-given
		if took := time.Since(began); took > 5500*time.Millisecond || !slowtest.IsCut(t, clients["reads nothing"], time.Second) {
			t.Errorf("who reads nothing is given up after %v, and may be connected", took)
		}
	})
}

// Nobody holds a place between two questions.
func TestAConnectionIsGoodForOneRequest(t *testing.T) {
	address := served(t)
	if !slowtest.IsCut(t, slowtest.Dial(t, "tcp", address, livez), patience) {
		t.Error("who has asked is still connected")
	}
}

func TestWhatIsTooLargeIsRefused(t *testing.T) {
	address := served(t)
	if status := probe(t, address, "GET /livez HTTP/1.1\r\nHost: agent\r\nA: "+strings.Repeat("x", 16<<10)+"\r\n\r\n", patience); status != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("a header of 16 KiB is answered with %d", status)
	}
	if status := probe(t, address, livez, patience); status != http.StatusOK {
		t.Errorf("a probe is answered with %d", status)
	}
}

// net/http would answer this by itself, with 200.
func TestOptionsOfTheServerAreNotServed(t *testing.T) {
	address := served(t)
	if status := probe(t, address, "OPTIONS * HTTP/1.1\r\nHost: agent\r\n\r\n", patience); status < 400 || status > 499 {
		t.Errorf("OPTIONS * is answered with %d", status)
	}
}

func TestTheEndWaitsForNoSlowClient(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		address, stop := inBubble(t, nil)
		for _, first := range []string{"", "GET /livez HT", "POST /livez HTTP/1.1\r\nHost: agent\r\nContent-Length: 9\r\n\r\n"} {
			slowtest.Dial(t, "tcp", address, first)
		}
		if status := probe(t, address, livez, soon); status != http.StatusOK {
			t.Errorf("a probe is answered with %d", status)
		}
		began := time.Now()
		stop()
		if took := time.Since(began); took > farewell+time.Second {
			t.Errorf("the end took %v", took)
		}
	})
}
