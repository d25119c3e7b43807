package sidecar_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/keyturn/keyturn/app/sidecar"
)

// heard is one request as the agent hears it.
type heard struct{ method, path, body string }

// recording serves on a socket, answers with status and body, and returns what it heard.
func recording(t *testing.T, status int, body string) (*sidecar.Agent, func() []heard) {
	t.Helper()
	var mu sync.Mutex
	var all []heard
	socket := socketPath(t)
	serve(t, socket, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		mu.Lock()
		all = append(all, heard{r.Method, r.URL.RequestURI(), string(b)})
		mu.Unlock()
		w.WriteHeader(status)
		io.WriteString(w, body)
	})
	return sidecar.New(socket, keyFile), func() []heard {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
}

// wantHeard asserts that there was one request, with a body that is the same document as want: the agent takes no field
// that it doesn't know.
func wantHeard(t *testing.T, got []heard, path, want string) {
	t.Helper()
	if len(got) != 1 || got[0].method != http.MethodPost || got[0].path != path {
		t.Fatalf("the agent heard %+v, want one POST %s", got, path)
	}
	if !reflect.DeepEqual(document(t, got[0].body), document(t, want)) {
		t.Errorf("the agent heard\n%s\nwant\n%s", got[0].body, want)
	}
}

func document(t *testing.T, text string) (v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber() // a float64 would make equal what isn't
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return v
}

func TestARefreshNamesTheFileAndBringsTheOutcome(t *testing.T) {
	for body, want := range map[string]sidecar.Refreshed{
		`{"outcome":"published","version":"7","identity":{"inode":3,"mtime_ns":4}}`: {Outcome: sidecar.Published},
		`{"outcome":"unchanged","identity":{"inode":0,"mtime_ns":0}}`:               {Outcome: sidecar.Unchanged},
		`{"outcome":"held","reason":"Gemini refuses it","identity":{}}`:             {Outcome: sidecar.Held, Reason: "Gemini refuses it"},
		`{"outcome":"unreachable","reason":"vault: sealed"}`:                        {Outcome: sidecar.Unreachable, Reason: "vault: sealed"},
	} {
		for _, refused := range []bool{true, false} {
			t.Run(string(want.Outcome)+strconv.FormatBool(refused), func(t *testing.T) {
				agent, all := recording(t, http.StatusOK, body)
				if got, err := agent.Refresh(t.Context(), have, refused); err != nil || got != want {
					t.Errorf("%+v, %v; want %+v", got, err, want)
				}
				wantHeard(t, all(), "/refresh", `{"file": "gemini-api-key",
					"identity": {"inode": 18446744073709551615, "mtime_ns": 1795548661123456789},
					"refused": `+strconv.FormatBool(refused)+`}`)
			})
		}
	}
}

func TestAnAcknowledgementNamesTheFileAndTheTime(t *testing.T) {
	agent, all := recording(t, http.StatusNoContent, "")
	at := time.Date(2026, 11, 24, 19, 30, 41, 123456789, time.UTC)
	if err := agent.Acknowledge(t.Context(), have, at); err != nil {
		t.Error(err)
	}
	wantHeard(t, all(), "/ack", `{"file": "gemini-api-key",
		"identity": {"inode": 18446744073709551615, "mtime_ns": 1795548661123456789},
		"at": "2026-11-24T19:30:41.123456789Z"}`)
}

func TestAnAcknowledgementOfAFileThatIsNotInForce(t *testing.T) {
	for _, status := range []int{http.StatusNotFound, http.StatusConflict} {
		agent, _ := agentThat(t, status, "the file is no longer the one that was rendered last\n")
		if err := agent.Acknowledge(t.Context(), have, time.Now()); err != sidecar.ErrReplaced {
			t.Errorf("HTTP %d: %v", status, err)
		}
	}
}

func TestARefreshOfAFileThatTheAgentDoesNotKnow(t *testing.T) {
	agent, socket := agentThat(t, http.StatusNotFound, "no such file is rendered here\n")
	_, err := agent.Refresh(t.Context(), have, true)
	wantSaid(t, err, socket, `"gemini-api-key"`, "AGENT_SECRETS", "APP_KEY_FILE")
}

func TestARefreshWhoseOutcomeIsNotKnownInTime(t *testing.T) {
	agent, socket := agentThat(t, http.StatusGatewayTimeout, "the outcome isn't known yet: ask again\n")
	_, err := agent.Refresh(t.Context(), have, true)
	wantSaid(t, err, socket, "in time")
}

// An agent that was killed and started anew makes another socket under the same path.
func TestAnAgentThatWasStartedAnewIsFoundAtOnce(t *testing.T) {
	socket := socketPath(t)
	agent := sidecar.New(socket, keyFile)
	none := agent.Instance()
	var instances []sidecar.Instance
	for _, outcome := range []sidecar.Outcome{sidecar.Unchanged, sidecar.Published} {
		stop := serve(t, socket, func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"outcome":"`+string(outcome)+`"}`)
		})
		if got, err := agent.Refresh(t.Context(), have, true); err != nil || got.Outcome != outcome {
			t.Errorf("%+v, %v; want %s", got, err, outcome)
		}
		instances = append(instances, agent.Instance())
		if again := agent.Instance(); again != instances[len(instances)-1] {
			t.Errorf("the same socket is %+v and then %+v", instances[len(instances)-1], again)
		}
		stop() // which takes the socket away
		if gone := agent.Instance(); gone != none {
			t.Errorf("no socket is %+v and then %+v", none, gone)
		}
	}
	if instances[0] == instances[1] || instances[0] == none || instances[1] == none {
		t.Errorf("the instances are to differ: %+v, and %+v without a socket", instances, none)
	}
}

func TestASocketBehindALinkIsFound(t *testing.T) {
	socket := socketPath(t)
	serve(t, socket, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	link := filepath.Join(filepath.Dir(socket), "link")
	if err := os.Symlink("agent.sock", link); err != nil {
		t.Fatal(err)
	}
	behind := sidecar.New(link, keyFile)
	if err := behind.Acknowledge(t.Context(), have, time.Now()); err != nil {
		t.Error(err)
	}
	if one, other := behind.Instance(), sidecar.New(socket, keyFile).Instance(); one != other || one == (sidecar.Instance{}) {
		t.Errorf("%+v and %+v are the same socket", one, other)
	}
}

func TestManyMayAskAtTheSameTime(t *testing.T) {
	agent, _ := agentThat(t, http.StatusOK, `{"outcome":"held","reason":"`+strings.Repeat("why ", 1000)+`"}`)
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if got, err := agent.Refresh(t.Context(), have, true); err != nil || got.Outcome != sidecar.Held {
				t.Errorf("%+v, %v", got, err)
			}
		})
	}
	group.Wait()
}

func TestErrReplacedIsOnlyForWhatIsReplaced(t *testing.T) {
	for _, status := range []int{http.StatusOK, http.StatusBadRequest, http.StatusGone, http.StatusServiceUnavailable} {
		agent, _ := agentThat(t, status, "{}")
		if err := agent.Acknowledge(t.Context(), have, time.Now()); err == nil || errors.Is(err, sidecar.ErrReplaced) {
			t.Errorf("HTTP %d: %v", status, err)
		}
	}
}
