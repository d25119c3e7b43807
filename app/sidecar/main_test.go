package sidecar_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/app/keyfile"
	"github.com/keyturn/keyturn/app/sidecar"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const keyFile = "/run/keyturn/keys/gemini-api-key"

// have has numbers that no float64 holds, as inodes and nanoseconds may be.
var have = keyfile.Identity{Inode: 18446744073709551615, ModTime: 1795548661123456789}

// socketPath returns where a test's socket may be: a short path, since the kernel takes 107 bytes.
func socketPath(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "sidecar")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return filepath.Join(dir, "agent.sock")
}

func listen(t *testing.T, socket string) net.Listener {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// serve answers with h on socket until the test ends, or close is called.
func serve(t *testing.T, socket string, h http.HandlerFunc) (close func()) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Listener.Close()
	s.Listener = listen(t, socket)
	s.Start()
	close = sync.OnceFunc(s.Close)
	t.Cleanup(close)
	return close
}

// agentThat answers every request with status and body.
func agentThat(t *testing.T, status int, body string) (agent *sidecar.Agent, socket string) {
	t.Helper()
	socket = socketPath(t)
	serve(t, socket, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
	return sidecar.New(socket, keyFile), socket
}

// raw hands each connection on socket to handle, and closes it then. The test's end waits for all of them.
func raw(t *testing.T, socket string, handle func(net.Conn)) {
	t.Helper()
	l := listen(t, socket)
	var group sync.WaitGroup
	group.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			group.Go(func() {
				defer c.Close()
				handle(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); group.Wait() })
}

// both asserts what a refresh and an acknowledgement come to.
func both(t *testing.T, agent *sidecar.Agent, check func(t *testing.T, err error)) {
	t.Helper()
	t.Run("refresh", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		answer, err := agent.Refresh(ctx, have, true)
		if answer != (sidecar.Refreshed{}) {
			t.Errorf("an answer beside the error: %+v", answer)
		}
		check(t, err)
	})
	t.Run("ack", func(t *testing.T) { check(t, agent.Acknowledge(t.Context(), have, time.Now())) })
}

// wantSaid asserts that err is one line that says all of that.
func wantSaid(t *testing.T, err error, parts ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("no error; want one that says %q", parts)
		return
	}
	for _, part := range append(parts, "") {
		if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q; want one line that says %q", err, part)
		}
	}
}
