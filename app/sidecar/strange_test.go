package sidecar_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/sidecar"
	"github.com/keyturn/keyturn/examples/lagtest"
)

func TestWhereNobodyListens(t *testing.T) {
	for name, prepare := range map[string]func(socket string) error{
		"missing":      func(string) error { return nil },
		"a plain file": func(socket string) error { return os.WriteFile(socket, []byte("planted"), 0o600) },
		"a directory":  func(socket string) error { return os.Mkdir(socket, 0o700) },
		"a dead link":  func(socket string) error { return os.Symlink("nowhere", socket) },
		"a stale socket": func(socket string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
			if err != nil {
				return err
			}
			l.SetUnlinkOnClose(false) // as a SIGKILL leaves it
			return l.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			socket := socketPath(t)
			if err := prepare(socket); err != nil {
				t.Fatal(err)
			}
			agent := sidecar.New(socket, keyFile)
			both(t, agent, func(t *testing.T, err error) { wantSaid(t, err, "no agent answers at "+socket, "APP_AGENT_SOCKET") })
			if none := (sidecar.Instance{}); (agent.Instance() == none) != (name != "a stale socket") {
				t.Errorf("the instance is %+v", agent.Instance())
			}
		})
	}
}

func TestAPathThatIsTooLongForASocket(t *testing.T) {
	socket := "/" + strings.Repeat("long/", 50) + "agent.sock"
	both(t, sidecar.New(socket, keyFile), func(t *testing.T, err error) { wantSaid(t, err, "no agent answers at "+socket) })
}

func TestAStrangeStatus(t *testing.T) {
	for _, status := range []int{201, 301, 308, 400, 401, 405, 413, 418, 429, 500, 502, 503} {
		agent, socket := agentThat(t, status, `{"outcome":"published"}`)
		both(t, agent, func(t *testing.T, err error) {
			wantSaid(t, err, "what answers at "+socket, "no agent", fmt.Sprintf("HTTP %d", status))
		})
	}
}

func TestAStrangeBody(t *testing.T) {
	for name, body := range map[string]string{
		"empty":           "",
		"no outcome":      "{}",
		"another outcome": `{"outcome":"elsewhere"}`,
		"another type":    `{"outcome":7}`,
		"null":            "null",
		"a list":          `["published"]`,
		"a page":          "<html>It works!</html>",
		"two documents":   `{"outcome":"published"}{"outcome":"held"}`,
		"oversized":       `{"outcome":"published","reason":"` + strings.Repeat("x", 64<<10) + `"}`,
	} {
		t.Run(name, func(t *testing.T) {
			agent, socket := agentThat(t, http.StatusOK, body)
			answer, err := agent.Refresh(t.Context(), have, true)
			wantSaid(t, err, "what answers at "+socket, "no agent")
			if answer != (sidecar.Refreshed{}) {
				t.Errorf("%+v", answer)
			}
		})
	}
}

func TestARedirectIsNotFollowed(t *testing.T) {
	socket := socketPath(t)
	serve(t, socket, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/elsewhere" {
			t.Error("it was followed")
		}
		http.Redirect(w, r, "/elsewhere", http.StatusTemporaryRedirect)
	})
	both(t, sidecar.New(socket, keyFile), func(t *testing.T, err error) { wantSaid(t, err, "HTTP 307") })
}

// Whatever they send, they are read to a bound and no further.
func TestAProgramThatSpeaksAnotherLanguage(t *testing.T) {
	for name, speak := range map[string]func(c net.Conn){
		"another protocol": func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH_10.2\r\n") },
		"nothing":          func(net.Conn) {},
		"endless header": func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			endless(c, "X-Header: "+strings.Repeat("x", 1000)+"\r\n")
		},
		"a body cut short": func(c net.Conn) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{") },
		"an endless body": func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			endless(c, strings.Repeat(" ", 1000))
		},
	} {
		t.Run(name, func(t *testing.T) {
			socket := socketPath(t)
			raw(t, socket, func(c net.Conn) {
				if _, err := c.Read(make([]byte, 4<<10)); err != nil {
					t.Error(err)
				}
				speak(c)
			})
			both(t, sidecar.New(socket, keyFile), func(t *testing.T, err error) { wantSaid(t, err, socket, "agent") })
		})
	}
}

// endless writes text until the other end has had enough.
func endless(c net.Conn, text string) {
	for {
		if _, err := io.WriteString(c, text); err != nil {
			return
		}
	}
}

// hung are the ways in which a program may stand still.
var hung = map[string]func(t *testing.T, socket string){
	"accepts nothing": func(t *testing.T, socket string) { listen(t, socket) },
	"answers nothing": func(t *testing.T, socket string) { raw(t, socket, untilClosed) },
	"stops after the header": func(t *testing.T, socket string) {
		raw(t, socket, func(c net.Conn) {
			c.Read(make([]byte, 4<<10))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
			untilClosed(c)
		})
	},
}

func untilClosed(c net.Conn) { io.Copy(io.Discard, c) }

func TestAHungAgentIsWaitedForNoLongerThanTheContextSays(t *testing.T) {
	for name, hang := range hung {
		t.Run(name, func(t *testing.T) {
			socket := socketPath(t)
			hang(t, socket)
			agent := sidecar.New(socket, keyFile)
			clock := lagtest.Start(t)
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			_, err := agent.Refresh(ctx, have, true)
			if ctx.Err() == nil {
				t.Error("it gave up before the context did")
			}
			wantSaid(t, err, "the agent at "+socket, "doesn't answer in time")
			wantSaid(t, agent.Acknowledge(ctx, have, time.Now()), "the agent at "+socket, "doesn't answer in time")
			if took := clock.Took(); took > time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestAnAcknowledgementBoundsItself(t *testing.T) {
	for name, hang := range hung {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			socket := socketPath(t)
			hang(t, socket)
			began, clock := time.Now(), lagtest.Start(t)
			wantSaid(t, sidecar.New(socket, keyFile).Acknowledge(t.Context(), have, began), socket, "in time")
			if least, most := time.Since(began), clock.Took(); least < 2*time.Second || most > 4*time.Second {
				t.Errorf("it took %v, want two seconds", least)
			}
		})
	}
}

func TestACallThatIsGivenUpReturnsTheContextsError(t *testing.T) {
	socket := socketPath(t)
	arrived := make(chan struct{}, 2)
	raw(t, socket, func(c net.Conn) {
		arrived <- struct{}{}
		untilClosed(c)
	})
	agent := sidecar.New(socket, keyFile)
	for _, call := range []func(context.Context) error{
		func(ctx context.Context) error { _, err := agent.Refresh(ctx, have, true); return err },
		func(ctx context.Context) error { return agent.Acknowledge(ctx, have, time.Now()) },
	} {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- call(ctx) }()
		<-arrived
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("%v; want the context's error", err)
		}
	}
}
