package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
	"github.com/keyturn/keyturn/examples/logtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("go.opencensus.io/stats/view.(*worker).start")) // started by an import
}

const question = `{"prompt":"Why is the sky blue?"}`

func TestExitCodesTellUseFromFailure(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := "APP_LISTEN=" + taken.Addr().String()
	for _, test := range []struct {
		name, stdout, stderr string
		args, pairs          []string
		code                 int
	}{
		{"help", "usage: keyturn-app [command]", "", []string{"-h"}, nil, 0},
		{"help before a bad configuration", "APP_KEY_FILE", "", []string{"--help"}, []string{"APP_SDK=none"}, 0},
		{"version", "keyturn-app devel ", "", []string{"version"}, nil, 0},
		{"no such command", "", "there is no such command", []string{"serve"}, nil, 2},
		{"too many arguments", "", "health takes no arguments", []string{"health", "now"}, nil, 2},
		{"bad configuration", "", "APP_SDK is none of", []string{"run"}, []string{"APP_SDK=none"}, 2},
		{"bad configuration without a command", "", "APP_SDK is none of", nil, []string{"APP_SDK=none"}, 2},
		{"bad configuration of health", "", "APP_SDK is none of", []string{"health"}, []string{"APP_SDK=none"}, 2},
		{"a port that is taken", "", "APP_LISTEN can't be listened on: address already in use", nil, []string{busy}, 1},
		{"health of nobody", "", "no app answers at APP_LISTEN", []string{"health"}, []string{"APP_LISTEN=127.0.0.1:1"}, 1},
	} {
		var stdout, stderr bytes.Buffer
		code := exitCode(run(t.Context(), test.args, environment(t, test.pairs...), &stdout, &stderr), &stderr)
		if code != test.code || !strings.Contains(stdout.String(), test.stdout) || !strings.Contains(stderr.String(), test.stderr) {
			t.Errorf("%s: %d\n%s\n%s", test.name, code, stdout.String(), stderr.String())
		}
		if code != 0 && !strings.HasPrefix(stderr.String(), "keyturn-app: ") {
			t.Errorf("%s: who says so? %q", test.name, stderr.String())
		}
	}
	if !strings.HasSuffix(versionOf(t), " "+runtime.Version()+"\n") {
		t.Errorf("%q", versionOf(t))
	}
}

func TestAnAddressThatIsNoneIsNotQuoted(t *testing.T) {
	err := listenError(&net.OpError{Op: "listen", Err: &net.DNSError{Err: "no such host", Name: canary}})
	if text := err.Error(); !strings.HasPrefix(text, "APP_LISTEN ") || strings.Contains(text, canary) {
		t.Error(text)
	}
}

func versionOf(t *testing.T) string {
	t.Helper()
	var b bytes.Buffer
	if err := run(t.Context(), []string{"version"}, nil, &b, io.Discard); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestTheAppFollowsItsFileAnswersAndStops(t *testing.T) {
	api := geminitest.NewServer()
	defer api.Close()
	api.Add("first-key")
	api.Add("second-key")
	file := filepath.Join(t.TempDir(), "key")
	app := start(t, "APP_KEY_FILE="+file, "GOOGLE_GEMINI_BASE_URL="+api.URL)

	health := func() error {
		environ := environment(t, "APP_LISTEN="+app.address)
		return run(t.Context(), []string{"health"}, environ, io.Discard, io.Discard)
	}
	eventually(t, "health says what it waits for", func() bool {
		err := health()
		return err != nil && strings.HasPrefix(err.Error(), "not ready: ") && strings.Contains(err.Error(), file)
	})
	render(t, file, "first-key", 0o600)
	eventually(t, "health says yes", func() bool { return health() == nil })
	if got := app.post(t, "/v1/generate"); !strings.HasSuffix(got, `"generation":1}`+"\n") {
		t.Error(got)
	}
	render(t, file, "second-key", 0o600)
	eventually(t, "the second key serves", func() bool {
		return strings.HasSuffix(app.post(t, "/v1/generate"), `"generation":2}`+"\n")
	})
	if got := app.post(t, "/v1/stream"); !strings.HasSuffix(got, "event: done\ndata: {\"generation\":2}\n\n") {
		t.Error(got)
	}
	if err := app.stop(); err != nil {
		t.Error(err)
	}
	messages := regexp.MustCompile(`"msg":"([^"]+)"`).FindAllStringSubmatch(app.stderr.String(), -1)
	if first, last := messages[0][1], messages[len(messages)-1][1]; first != "started" || last != "stopped" || len(messages) > 8 {
		t.Errorf("one line for each change of state:\n%s", app.stderr.String())
	}
}

func TestAStaticKeyServesWithoutAFile(t *testing.T) {
	api := geminitest.NewServer()
	defer api.Close()
	api.Add("a-key")
	app := start(t, "APP_KEY_FILE=", "GEMINI_API_KEY=a-key", "APP_SDK=genai", "GOOGLE_GEMINI_BASE_URL="+api.URL)
	eventually(t, "it answers", func() bool { return strings.HasSuffix(app.post(t, "/v1/generate"), `"generation":1}`+"\n") })
}

// process is an app that runs within the test.
type process struct {
	address string
	stderr  *logtest.Page
	stop    func() error // as SIGTERM does; it waits, and returns what run did
}

// start runs the app on a free port, until the test ends.
func start(t *testing.T, pairs ...string) *process {
	t.Helper()
	environ := environment(t, append(pairs, "APP_LISTEN=127.0.0.1:0")...)
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{stderr: &logtest.Page{}}
	done := make(chan error, 1)
	go func() { done <- run(ctx, nil, environ, io.Discard, p.stderr) }()
	p.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() { p.stop() })
	listen := regexp.MustCompile(`"msg":"started".*"listen":"([^"]+)"`)
	eventually(t, "it has started", func() bool { return listen.MatchString(p.stderr.String()) })
	p.address = listen.FindStringSubmatch(p.stderr.String())[1]
	return p
}

// caller keeps no connection, so that none outlives its test.
var caller = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 20 * time.Second}

// post asks the question and returns the body of the answer, whatever its status.
func (p *process) post(t *testing.T, path string) string {
	t.Helper()
	response, err := caller.Post("http://"+p.address+path, "application/json", strings.NewReader(question))
	return read(t, response, err)
}

func (p *process) get(t *testing.T, path string) string {
	t.Helper()
	response, err := caller.Get("http://" + p.address + path)
	return read(t, response, err)
}

func read(t *testing.T, response *http.Response, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// render puts content into place as the agent does.
func render(t *testing.T, file, content string, mode os.FileMode) {
	t.Helper()
	temporary := file + ".tmp"
	if err := errors.Join(os.WriteFile(temporary, []byte(content), mode), os.Chmod(temporary, mode), os.Rename(temporary, file)); err != nil {
		t.Fatal(err)
	}
}

// eventually waits until what holds, and says what it waited for if it never does.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("after 10 s still not: %s", what)
		case <-tick.C:
		}
	}
}
