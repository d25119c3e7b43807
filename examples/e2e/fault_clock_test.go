package e2e

import (
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/examples/lagtest"
)

// clockFaults happen to the time of day: to the one that agent and app see, and to the one that Vault dates versions by.
var clockFaults = []fault{
	jump("clock jumps ahead", "the clock of the running agent and app jumps an hour ahead, the next key comes, and the clock jumps back", time.Hour),
	jump("clock jumps back", "the clock of the running agent and app jumps an hour back, the next key comes, and the clock jumps ahead", -time.Hour),
	{
		name: "Vault's clock set back", did: "Vault dates all that is written from now on an hour back; the next key comes, and Gemini refuses the old one at once", felt: never, lines: 4,
		strike: func(w *world) {
			vault, old := datedBack(w.front.next, time.Now()), w.current
			w.front.answer(vault)
			w.rotate()
			w.gemini.Revoke(old)
			if first, second := w.created(vault, 1), w.created(vault, 2); !second.Before(first) {
				w.t.Errorf("the second version is of %v, and the first of %v: nothing is dated back", second, first)
			}
		},
	},
}

// poll is the longest time between two reads of a world's agent: a second and its jitter.
const poll = 1100 * time.Millisecond

// jump is a clock that jumps and later jumps back, each time shortly before a key comes.
func jump(name, did string, by time.Duration) fault {
	return fault{
		name: name, did: did, felt: never, lines: 3, setting: setting{appRole: true, build: withMovableClock},
		strike: func(w *world) {
			w.setClocks(by)
			before, clock := w.generation(), lagtest.Start(w.t)
			w.rotate()
			eventually(w.t, "the next key is served", func() bool { return w.generation() > before })
			if took, bound := clock.Took(), poll+recovery+slack(); took > bound {
				w.t.Errorf("the next key is served after %v, want at most %v", took, bound)
			}
			w.seesClock(by, before+1)
		},
		mend: func(w *world) {
			if n := strings.Count(w.front.seen(), "/v1/auth/"); n != 1 {
				w.t.Errorf("the agent logged in or renewed its token %d times, want once, when it started", n)
			}
			w.setClocks(0)
		},
	}
}

// seesClock wants agent and app to see a clock that is off by d, and the app to serve its generation by that clock.
func (w *world) seesClock(d time.Duration, generation uint64) {
	w.t.Helper()
	read, _ := w.agent.metric(w.t, "keyturn_agent_store_read_timestamp_seconds", fmt.Sprintf("file=%q", w.file))
	_, body := get(w.t, w.appURL+"/status")
	var app struct {
		Generation uint64
		SwappedAt  time.Time `json:"swapped_at"`
		Ready      bool
		Refused    uint64
	}
	w.try(json.Unmarshal(body, &app))
	if app.Generation != generation || !app.Ready || app.Refused != 0 {
		w.t.Errorf("/status says %s, want generation %d, ready and nothing refused", body, generation)
	}
	for who, at := range map[string]float64{"agent": read, "app": float64(app.SwappedAt.Unix())} {
		if off := at - float64(time.Now().Unix()); math.Abs(off-d.Seconds()) > time.Minute.Seconds() {
			w.t.Errorf("the %s's clock is off by %.0f s, want %.0f", who, off, d.Seconds())
		}
	}
}

// setClocks makes the clocks of agent and app differ from the machine's by d.
func (w *world) setClocks(d time.Duration) {
	w.t.Helper()
	w.agent.setClock(w.t, d)
	w.app.setClock(w.t, d)
}

// setClock makes the clock of a running program that withMovableClock built differ from the machine's by d.
func (p *process) setClock(t testing.TB, d time.Duration) {
	t.Helper()
	program := must[*elf.File](t)(elf.Open(p.cmd.Path))
	defer program.Close()
	symbols := must[[]elf.Symbol](t)(program.Symbols())
	i := slices.IndexFunc(symbols, func(s elf.Symbol) bool { return s.Name == "time.movedBy" })
	if i < 0 {
		t.Fatalf("%s has no clock that can be moved", p.cmd.Path)
	}
	memory := must[*os.File](t)(os.OpenFile(fmt.Sprintf("/proc/%d/mem", p.cmd.Process.Pid), os.O_WRONLY, 0))
	defer memory.Close()
	seconds := binary.NativeEndian.AppendUint64(nil, uint64(d/time.Second))
	must[int](t)(memory.WriteAt(seconds, int64(symbols[i].Value)))
}

// withMovableClock builds agent or app with a clock that setClock moves, as root only.
//
// The time of day can't be set for one program: Linux has one for all of the machine, and a time namespace, which has offsets
// for the monotonic clocks, has none for it (time_namespaces(7)). So the program is built with a package time of which Now adds
// a variable, which the test writes into the running program's memory. As when the time of day is set, the monotonic clock
// goes on as it was. What the kernel itself stamps, such as the ctime of a file, isn't moved.
func withMovableClock(t testing.TB, half string) string {
	t.Helper()
	asRoot(t)
	return ours.buildAs(t, "keyturn-"+half+"-movable", ".", "github.com/keyturn/keyturn/"+half, "-trimpath", "-overlay", movableTime(t))
}

// movableTime returns an overlay (go help build) of the package time.
func movableTime(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	goroot := must[[]byte](t)(exec.CommandContext(t.Context(), "go", "env", "GOROOT").Output())
	original := filepath.Join(strings.TrimSpace(string(goroot)), "src", "time", "time.go")
	before, after, found := strings.Cut(string(must[[]byte](t)(os.ReadFile(original))), clockRead)
	if !found || strings.Contains(after, clockRead) {
		t.Fatalf("%s hasn't once %q: make Now add movedBy where this version of Go reads the clock", original, clockRead)
	}
	moved, overlay := filepath.Join(dir, "time.go"), filepath.Join(dir, "overlay.json")
	rewrite(t, moved, before+"var movedBy int64 // seconds\n\n"+clockRead+"\tsec += movedBy\n"+after)
	rewrite(t, overlay, string(must[[]byte](t)(json.Marshal(map[string]any{"Replace": map[string]string{original: moved}}))))
	return overlay
}

// clockRead is where the package time reads the clock.
const clockRead = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"

var createdTime = regexp.MustCompile(`"created_time":"([^"]+)"`)

// datedBack answers as Vault does, but that all versions made after from are dated an hour earlier.
func datedBack(vault http.Handler, from time.Time) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		answer := httptest.NewRecorder()
		vault.ServeHTTP(answer, r)
		for name, values := range answer.Header() {
			if name != "Content-Length" { // the time may have fewer digits
				w.Header()[name] = values
			}
		}
		w.WriteHeader(answer.Code)
		w.Write(createdTime.ReplaceAllFunc(answer.Body.Bytes(), func(field []byte) []byte {
			at, err := time.Parse(time.RFC3339Nano, string(createdTime.FindSubmatch(field)[1]))
			if err != nil || !at.After(from) {
				return field
			}
			return fmt.Appendf(nil, `"created_time":"%s"`, at.Add(-time.Hour).Format(time.RFC3339Nano))
		}))
	}
}

// created returns when a version of the secret was made, as vault says; front doesn't count the question.
func (w *world) created(vault http.Handler, version int) time.Time {
	w.t.Helper()
	r := httptest.NewRequestWithContext(w.t.Context(), http.MethodGet, fmt.Sprintf("/v1/secret/data/%s?version=%d", w.secret, version), nil)
	r.Header.Set("X-Vault-Token", w.vault.RootToken)
	answer := httptest.NewRecorder()
	vault.ServeHTTP(answer, r)
	found := createdTime.FindSubmatch(answer.Body.Bytes())
	if found == nil {
		w.t.Fatalf("Vault answers %d, and no time of version %d", answer.Code, version)
	}
	return must[time.Time](w.t)(time.Parse(time.RFC3339Nano, string(found[1])))
}
