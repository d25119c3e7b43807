// Package sidecar talks to the agent over its socket: it asks for a refresh and acknowledges what is in use.
//
// An app needs none of it to run: the file alone brings every new key. What the socket adds is time, since a key that was
// refused is replaced in milliseconds rather than at the agent's next read, and knowledge on the agent's side.
//
// Nothing that crosses the socket is a secret. All the same the app talks to nobody but a process of its own uid.
package sidecar

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/keyturn/keyturn/app/keyfile"
)

// ErrReplaced is what Acknowledge returns when the agent has rendered another file since, or never rendered this one.
var ErrReplaced = errors.New("the agent has another file in force")

// Outcome is what a refresh came to.
type Outcome string

// Outcomes.
const (
	Published   Outcome = "published"   // another file than the caller's is in place
	Unchanged   Outcome = "unchanged"   // the store holds nothing newer
	Held        Outcome = "held"        // the store holds a newer value, and the agent's gate holds it
	Unreachable Outcome = "unreachable" // the store can't be read
)

func (o Outcome) known() bool {
	return slices.Contains([]Outcome{Published, Unchanged, Held, Unreachable}, o)
}

// Refreshed is the agent's answer to a refresh.
type Refreshed struct {
	Outcome Outcome `json:"outcome"`
	// Reason says why a value is held, or the store can't be read; empty otherwise.
	Reason string `json:"reason"`
}

const (
	// acknowledgeTimeout bounds an acknowledgement, which the agent answers from memory.
	acknowledgeTimeout = 2 * time.Second
	// maxAnswer bounds what is read of an answer.
	maxAnswer = 64 << 10
)

// Agent is the agent that renders one key file. It is safe for concurrent use. It keeps no connection, so an agent that
// was started anew is found at once.
type Agent struct {
	socket, file string
	http         *http.Client
}

// New returns the agent that listens on socket and renders keyFile, of which it knows the last element alone. It does no
// I/O.
func New(socket, keyFile string) *Agent {
	return &Agent{socket: socket, file: filepath.Base(keyFile), http: &http.Client{
		Transport: &http.Transport{
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) },
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // an agent has none
	}}
}

// Refresh makes the agent read the store now and waits for the outcome, for as long as ctx lets it. have is the file that
// the caller read; refused says that its key was refused where it is used. Its errors name the socket and the mend.
func (a *Agent) Refresh(ctx context.Context, have keyfile.Identity, refused bool) (Refreshed, error) {
	status, body, err := a.post(ctx, "/refresh", map[string]any{"file": a.file, "identity": have, "refused": refused})
	switch {
	case err != nil:
		return Refreshed{}, err
	case status == http.StatusNotFound:
		return Refreshed{}, fmt.Errorf("the agent at %s renders no file %q: name it in AGENT_SECRETS, or set APP_KEY_FILE to one that is", a.socket, a.file)
	case status == http.StatusGatewayTimeout: // it stops, or the store takes its time
		return Refreshed{}, a.late()
	}
	var answer Refreshed
	if status != http.StatusOK || json.Unmarshal(body, &answer) != nil || !answer.Outcome.known() {
		return Refreshed{}, a.strange(status)
	}
	return answer, nil
}

// Acknowledge tells the agent that the key of the file named by id is in use, and has been since at. It blocks for two
// seconds at most. ErrReplaced means that there is nothing left to acknowledge; other errors are those of Refresh.
func (a *Agent) Acknowledge(ctx context.Context, id keyfile.Identity, at time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, acknowledgeTimeout)
	defer cancel()
	status, _, err := a.post(ctx, "/ack", map[string]any{"file": a.file, "identity": id, "at": at})
	switch {
	case err != nil:
		return err
	case status == http.StatusNotFound || status == http.StatusConflict:
		return ErrReplaced
	case status != http.StatusNoContent:
		return a.strange(status)
	}
	return nil
}

// Instance names the socket as it stands now, so that a caller sees when an agent was started anew; zero if there is none.
func (a *Agent) Instance() Instance {
	info, err := os.Stat(a.socket)
	if err != nil || info.Mode().Type() != os.ModeSocket {
		return Instance{}
	}
	return instanceOf(info)
}

// Instance is one socket of an agent. Instances are equal if they are the same.
type Instance struct {
	inode   uint64
	changed int64 // its ctime in nanoseconds, since an inode's number comes again
}

// IsZero reports whether there was no socket.
func (i Instance) IsZero() bool { return i == Instance{} }

// post sends body and returns the answer, of whose body it reads maxAnswer bytes at most.
func (a *Agent) post(ctx context.Context, path string, body any) (status int, answer []byte, err error) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://agent"+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil, err
	}
	response, err := a.http.Do(request)
	if err != nil {
		return 0, nil, a.unreachable(ctx, err)
	}
	defer response.Body.Close()
	answer, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer))
	if err != nil {
		return 0, nil, a.unreachable(ctx, err)
	}
	return response.StatusCode, answer, nil
}

// unreachable says why there is no answer.
func (a *Agent) unreachable(ctx context.Context, err error) error {
	foreign, ok := errors.AsType[*foreignError](err)
	switch {
	case ok:
		return foreign
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return a.late()
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("uid %d may not talk to the agent at %s: run both as the same user", os.Geteuid(), a.socket)
	}
	return fmt.Errorf("no agent answers at %s: start it, or set APP_AGENT_SOCKET to empty", a.socket)
}

func (a *Agent) late() error {
	return fmt.Errorf("the agent at %s doesn't answer in time: is it stopped, or another program?", a.socket)
}

func (a *Agent) strange(status int) error {
	return fmt.Errorf("what answers at %s is no agent of this version (HTTP %d)", a.socket, status)
}

// foreignError says that a socket belongs to somebody else.
type foreignError struct {
	socket string
	uid    int
}

func (e *foreignError) Error() string {
	return fmt.Sprintf("%s belongs to a process of uid %d, and this one runs as %d: run the agent as the same user", e.socket, e.uid, os.Geteuid())
}

// dial connects to a process of this process's uid, and to no other (unix(7), SO_PEERCRED).
func dial(ctx context.Context, socket string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	uid, err := peer(c.(*net.UnixConn))
	if err == nil && uid != os.Geteuid() {
		err = &foreignError{socket, uid}
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}
