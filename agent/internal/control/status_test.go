package control

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// inPlay is a loop with one file of each sort.
func inPlay() turn.Status {
	at := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	v := func(n int) secret.Version { return secret.Version{Number: n, Created: at} }
	return turn.Status{
		Outage: &source.Error{Kind: source.Sealed, Reason: "Vault is sealed: unseal it"},
		Files: []turn.FileStatus{
			{File: "waiting", Reason: "the store was not read yet"},
			{File: "fine", Rendered: true, Identity: identity, Stored: v(3), Published: v(3), Changed: at, Read: time.Now(), Next: at,
				InUse: turn.InUse{Version: v(3), Identity: identity, Since: at, Lag: 9 * time.Millisecond}},
			{File: "behind", Rendered: true, Stored: v(5), Published: v(4), Read: time.Now(), Held: v(5), HeldSince: at, HeldNext: at,
				HeldReason: "Gemini refuses the key: HTTP 400 API_KEY_INVALID", Kind: turn.KindHeld},
			{File: "refused", Rendered: true, Published: v(1), Stored: v(1), Read: time.Now(), Refused: true},
			{File: "unproven", Rendered: true, Published: v(1), Stored: v(1), Read: time.Now(), Unproven: "Gemini can't be asked: HTTP 503"},
			{File: "adopted", Rendered: true},
		},
	}
}

func TestTheStatusSaysWhereEachVersionIs(t *testing.T) {
	_, path := serve(t, &loop{status: inPlay()})
	document, err := Ask(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	var s Status
	if err := json.Unmarshal(document, &s); err != nil {
		t.Fatal(err)
	}
	if s.Outage != "Vault is sealed: unseal it" || len(s.Files) != 6 {
		t.Fatalf("%s", document)
	}
	fine, behind, adopted := s.Files[1], s.Files[2], s.Files[5]
	if fine.Stored != "3" || fine.Published != "3" || fine.InUse == nil || fine.InUse.Version != "3" || fine.InUse.Lag != 0.009 ||
		fine.Identity != identity || fine.Next.IsZero() || fine.Stale > 60 {
		t.Errorf("fine: %+v", fine)
	}
	if behind.Stored != "5" || behind.Published != "4" || behind.Held == nil || behind.Held.Version != "5" ||
		!strings.Contains(behind.Held.Reason, "API_KEY_INVALID") || behind.InUse != nil {
		t.Errorf("behind: %+v", behind)
	}
	if adopted.Published != "" || adopted.Stored != "" || !adopted.Rendered {
		t.Errorf("adopted, and its version isn't known: %+v", adopted)
	}
}

func TestTheTableIsForPeople(t *testing.T) {
	_, path := serve(t, &loop{status: inPlay()})
	document, err := Ask(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	if err := Table(&b, document); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"The store fails: Vault is sealed", "FILE", "waiting", "the store was not read yet", "3 since",
		"held: Gemini refuses the key", "refused where it is used", "unproven: Gemini can't be asked"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is missing in\n%s", want, b.String())
		}
	}
	if err := Table(&b, []byte("<html>")); err == nil {
		t.Error("what is no status was printed as one")
	}
}

func TestNobodyAnswersAndTheSentenceSaysWhatToDo(t *testing.T) {
	if _, err := Ask(t.Context(), t.TempDir()+"/agent.sock"); err == nil || !strings.Contains(err.Error(), "AGENT_DIR") {
		t.Errorf("%v", err)
	}
}
