package control

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"text/tabwriter"
	"time"

	"github.com/keyturn/keyturn/agent/internal/secret"
	"github.com/keyturn/keyturn/agent/internal/turn"
)

// Status is the answer to GET /status. Versions are the store's numbers, or "unversioned"; a missing one isn't known.
type Status struct {
	// Outage says what the store fails with; empty while it answers.
	Outage string `json:"outage,omitempty"`
	Files  []File `json:"files"`
}

// File is the state of one file.
type File struct {
	File     string `json:"file"`
	Rendered bool   `json:"rendered"`
	// Stored is the version that the store answered with last, as far as it counts; Published the one in the file.
	Stored    string          `json:"version_stored,omitempty"`
	Published string          `json:"version_published,omitempty"`
	Identity  secret.Identity `json:"identity"`
	// InUse is what an app acknowledged last.
	InUse *InUse `json:"in_use,omitempty"`
	// Held is what the gate holds back.
	Held *Held `json:"held,omitempty"`
	// Unproven says why the value was published without proof; Refused that it is known to be refused.
	Unproven string `json:"unproven,omitempty"`
	Refused  bool   `json:"refused,omitempty"`
	// Waits says why the file waits for its first value, or for a newer one; empty while it is in step with the store.
	Waits string `json:"waits_for,omitempty"`
	// Changed is when the file last got other bytes, Read when the store last answered, Next when it will be asked again.
	Changed time.Time `json:"changed_at,omitzero"`
	Read    time.Time `json:"read_at,omitzero"`
	Next    time.Time `json:"next_read_at,omitzero"`
	// Stale is the time since Read in seconds, 0 before the first.
	Stale float64 `json:"stale_seconds"`
}

// InUse is what an app said that it uses.
type InUse struct {
	Version string    `json:"version"`
	Since   time.Time `json:"since"`
	// Lag is the time from the render to the first success, in seconds.
	Lag float64 `json:"lag_seconds"`
}

// Held is a version that is not published.
type Held struct {
	Version string    `json:"version"`
	Since   time.Time `json:"since"`
	Reason  string    `json:"reason"`
	// Next is when it is judged again; missing if only another value can help.
	Next time.Time `json:"next_try_at,omitzero"`
}

func report(s turn.Status) Status {
	r := Status{Files: make([]File, len(s.Files))}
	if s.Outage != nil {
		r.Outage = s.Outage.Reason
	}
	for i, f := range s.Files {
		r.Files[i] = reportFile(f)
	}
	return r
}

func reportFile(f turn.FileStatus) File {
	r := File{
		File: f.File, Rendered: f.Rendered, Identity: f.Identity,
		Unproven: f.Unproven, Refused: f.Refused, Waits: f.Reason,
		Changed: f.Changed, Read: f.Read, Next: f.Next,
	}
	if !f.Read.IsZero() {
		r.Stored, r.Stale = f.Stored.String(), time.Since(f.Read).Seconds()
	}
	if f.Rendered && !f.Read.IsZero() {
		r.Published = f.Published.String()
	}
	if !f.InUse.Since.IsZero() {
		r.InUse = &InUse{f.InUse.Version.String(), f.InUse.Since, f.InUse.Lag.Seconds()}
	}
	if !f.HeldSince.IsZero() {
		r.Held = &Held{f.Held.String(), f.HeldSince, f.HeldReason, f.HeldNext}
	}
	return r
}

// Ask returns the status document of the agent that answers on the socket at path, as it came.
func Ask(ctx context.Context, path string) ([]byte, error) {
	var dialer net.Dialer
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", path)
		},
	}}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/status", nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("no agent answers at %s: start it, set AGENT_DIR to where it renders, and run this under its uid", path)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers with %s: this is no agent of this version", path, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 16<<20))
}

// Table writes a status document for people.
func Table(w io.Writer, document []byte) error {
	var s Status
	if err := json.Unmarshal(document, &s); err != nil {
		return fmt.Errorf("the status is not what this version of the agent writes: %w", err)
	}
	if s.Outage != "" {
		fmt.Fprintf(w, "The store fails: %s\n\n", s.Outage)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "FILE\tSTORED\tPUBLISHED\tIN USE\tREAD\tNOTE")
	for _, f := range s.Files {
		inUse, read := "-", "-"
		if f.InUse != nil {
			inUse = f.InUse.Version + " since " + f.InUse.Since.Local().Format(time.TimeOnly)
		}
		if !f.Read.IsZero() {
			read = time.Duration(f.Stale*float64(time.Second)).Round(100*time.Millisecond).String() + " ago"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", f.File, cmp.Or(f.Stored, "-"), cmp.Or(f.Published, "-"), inUse, read, note(f))
	}
	return t.Flush()
}

func note(f File) string {
	switch {
	case f.Held != nil:
		return "held: " + f.Held.Reason
	case f.Waits != "":
		return f.Waits
	case f.Refused:
		return "refused where it is used"
	case f.Unproven != "":
		return "unproven: " + f.Unproven
	}
	return "ok"
}
