package control

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/slowtest"
	"github.com/keyturn/keyturn/examples/lagtest"
)

const (
	// cut is when whoever is slow must have been cut off: the server's longest bound, and some.
	cut = 5 * time.Second
	// patience is how long a test waits for what must come.
	patience = 20 * time.Second
)

const statusRequest = "GET /status HTTP/1.1\r\nHost: agent\r\n\r\n"

func TestWhoIsSlowIsCutOff(t *testing.T) {
	l := &loop{}
	_, path := serve(t, l)
	clock := lagtest.Start(t)
	clients := map[string]net.Conn{}
	for what, first := range map[string]string{
		"says nothing":              "",
		"sends half a header":       "POST /refresh HT",
		"sends a header bit by bit": "GET /status HTTP/1.1\r\n",
		"sends half a body":         "POST /refresh HTTP/1.1\r\nHost: agent\r\nContent-Length: 99\r\n\r\n{\"file\":",
		"sends half a piece":        "POST /ack HTTP/1.1\r\nHost: agent\r\nTransfer-Encoding: chunked\r\n\r\n63\r\n{\"file\":",
	} {
		clients[what] = slowtest.Dial(t, "unix", path, first)
	}
	eventually(t, "who sends a header bit by bit is cut off", func() bool {
		_, err := io.WriteString(clients["sends a header bit by bit"], "A: b\r\n")
		return err != nil
	})
	for what, c := range clients {
		if !slowtest.IsCut(t, c, patience) {
			t.Errorf("who %s is never cut off", what)
		}
	}
	if took := clock.Took(); took > cut {
		t.Errorf("they are cut off after %v", took)
	}
	if n := l.count(); n != 0 {
		t.Errorf("the loop was asked %d times", n)
	}
}

// Nobody holds a place between two requests.
func TestAConnectionIsGoodForOneRequest(t *testing.T) {
	_, path := serve(t, &loop{})
	clock := lagtest.Start(t)
	if !slowtest.IsCut(t, slowtest.Dial(t, "unix", path, statusRequest), patience) || clock.Took() > time.Second {
		t.Errorf("who has asked is still connected after %v", clock.Took())
	}
}

// Those who come when all places are taken wait until somebody goes or is cut off.
func TestOnlySoManyAreServedAtOnce(t *testing.T) {
	_, path := serve(t, &loop{})
	clock := lagtest.Start(t)
	var all []net.Conn
	for range connections {
		all = append(all, slowtest.Dial(t, "unix", path, "GET /status HTTP/1.1\r\n"))
	}
	last := slowtest.Dial(t, "unix", path, statusRequest)
	last.SetReadDeadline(time.Now().Add(patience))
	response, err := http.ReadResponse(bufio.NewReader(last), nil)
	if err != nil || response.StatusCode != http.StatusOK {
		t.Fatalf("who waited for a place: %v", err)
	}
	response.Body.Close()
	if took := clock.Took(); took > cut {
		t.Errorf("who waited for a place was answered after %v", took)
	}
	if !slices.ContainsFunc(all, func(c net.Conn) bool { return slowtest.IsCut(t, c, time.Millisecond) }) {
		t.Errorf("one more than %d is answered at once", connections)
	}
}

func TestWhatNoClientOfOursSendsIsRefused(t *testing.T) {
	l := &loop{}
	_, path := serve(t, l)
	const huge = "POST /refresh HTTP/1.1\r\nHost: agent\r\nContent-Length: 1000000000\r\n\r\n"
	for request, want := range map[string]int{
		"OPTIONS * HTTP/1.1\r\nHost: agent\r\n\r\n":                                             http.StatusBadRequest,
		"GET /status HTTP/1.1\r\nHost: agent\r\nA: " + strings.Repeat("x", 16<<10) + "\r\n\r\n": http.StatusRequestHeaderFieldsTooLarge,
		huge + `{"file":"` + strings.Repeat("x", maxBody):                                       http.StatusRequestEntityTooLarge,
	} {
		c := slowtest.Dial(t, "unix", path, request)
		c.SetReadDeadline(time.Now().Add(patience))
		response, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%.40q: %v", request, err)
			continue
		}
		response.Body.Close()
		if response.StatusCode != want || !slowtest.IsCut(t, c, patience) {
			t.Errorf("%.40q is answered with %d and goes on, want %d and the end", request, response.StatusCode, want)
		}
	}
	if n := l.count(); n != 0 {
		t.Errorf("the loop was asked %d times", n)
	}
}

// At the end nobody can connect any more, at once, and a slow client delays it by no more than the farewell.
func TestTheEndWaitsForNoSlowClient(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- New(&loop{}, slog.New(slog.DiscardHandler)).Serve(ctx, path, locked) }()
	eventually(t, "the socket is there", func() bool { return answers(path) })
	for _, first := range []string{"", "GET /status HT", "POST /refresh HTTP/1.1\r\nHost: agent\r\nContent-Length: 9\r\n\r\n{"} {
		slowtest.Dial(t, "unix", path, first)
	}
	clock := lagtest.Start(t)
	cancel()
	eventually(t, "the socket is gone", func() bool { return !answers(path) })
	if took := clock.Took(); took > farewell/2 {
		t.Errorf("the socket was there for another %v", took)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if took := clock.Took(); took > farewell+time.Second {
		t.Errorf("the end took %v", took)
	}
}
