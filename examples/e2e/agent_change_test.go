package e2e

import (
	"fmt"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

// A reader that looks all the time sees one whole value after the other, and the file is never missing.
func TestAnotherVersionInVaultReplacesTheFileAtOnce(t *testing.T) {
	const versions = 8
	v := plainVault(t)
	secret, first := newSecret(t, v)
	values := []string{first}
	for range versions - 1 {
		values = append(values, newValue())
	}
	a := newAgent(t, reach(v), tokenFile(t, v, allow(t, v, unique(), secret)), "key="+secret).ready(t)

	var reader sync.WaitGroup
	done := make(chan struct{})
	reader.Go(func() {
		at := 0
		for {
			select {
			case <-done:
				return
			default:
			}
			b, err := os.ReadFile(a.path("key"))
			seen := slices.Index(values, string(b))
			if err != nil || seen < at {
				t.Errorf("a reader saw %d bytes (%v) after version %d", len(b), err, at+1)
				return
			}
			at = seen
		}
	})
	for i, value := range values[1:] {
		put(t, v, secret, map[string]any{"k": value})
		eventually(t, fmt.Sprintf("version %d is in the file", i+2), func() bool { return holds(a.path("key"), value) })
	}
	close(done)
	reader.Wait()
	assertRendered(t, a.path("key"), values[versions-1])
	if got := names(t, a.dir); !slices.Equal(got, []string{"agent.sock", "key"}) {
		t.Errorf("beside the file are %q", got)
	}
	for name, want := range map[string]float64{"file_version": versions, "store_version": versions, "renders_total": versions} {
		if got, _ := a.metric(t, "keyturn_agent_"+name, `file="key"`); got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestAnUnchangedValueIsNotWrittenAgain(t *testing.T) {
	v := plainVault(t)
	secret, value := newSecret(t, v)
	a := newAgent(t, reach(v), tokenFile(t, v, allow(t, v, unique(), secret)), "key="+secret).ready(t)
	before := must[os.FileInfo](t)(os.Stat(a.path("key")))
	put(t, v, secret, map[string]any{"k": value})
	eventually(t, "the version moves on", func() bool { return a.readyz(t).Files[0].Version == "2" })
	a.reads(t, "key", 2)
	after := must[os.FileInfo](t)(os.Stat(a.path("key")))
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) {
		t.Error("equal bytes were written anew")
	}
}

func TestSeveralFieldsOfASecretComeFromOneRead(t *testing.T) {
	v := plainVault(t)
	name, one, two := unique(), newValue(), newValue()
	put(t, v, name, map[string]any{"one": one, "two": two})
	var reads atomic.Int64
	target := must[*url.URL](t)(url.Parse(v.Addr))
	front := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		if strings.HasSuffix(r.In.URL.Path, "/data/"+name) {
			reads.Add(1)
		}
		r.SetURL(target)
	}})
	defer front.Close()
	a := startAgent(t, filepath.Join(memory(t), "keys"), []string{
		"VAULT_ADDR=" + front.URL, "AGENT_TOKEN_FILE=" + tokenFile(t, v, allow(t, v, unique(), name)), "AGENT_POLL_INTERVAL=1h",
		fmt.Sprintf("AGENT_SECRETS=first=secret/%[1]s#one,second=secret/%[1]s#two", name),
	}).started(t).ready(t)
	assertRendered(t, a.path("first"), one)
	assertRendered(t, a.path("second"), two)
	if n := reads.Load(); n != 1 {
		t.Errorf("%d reads for two fields of one secret", n)
	}
}

func TestVaultsOutageKeepsTheKeyAndTheReadiness(t *testing.T) {
	v := vaulttest.ForTest(t, vaulttest.Options{Binary: must[string](t)(vaulttest.Binary(t.Context(), os.Stderr))})
	secret, value := newSecret(t, v)
	token := tokenFile(t, v, allow(t, v, unique(), secret))
	a := newAgent(t, append(reach(v), "VAULT_CLIENT_TIMEOUT=1s"), token, "key="+secret).ready(t)

	for name, outage := range map[string]struct {
		begin, end func() error
		waits      string
	}{
		"paused": {v.Pause, v.Resume, "no answer from Vault within 1s"},
		"sealed": {func() error { return v.Seal(t.Context()) }, func() error { return v.Unseal(t.Context()) }, "Vault is sealed"},
	} {
		if err := outage.begin(); err != nil {
			t.Fatal(err)
		}
		eventually(t, name+": /readyz says so", func() bool { return strings.Contains(a.waits(t, "key"), outage.waits) })
		if a.readyz(t).status != 200 {
			t.Errorf("%s: the agent isn't ready any more", name)
		}
		assertRendered(t, a.path("key"), value)
		if up, _ := a.metric(t, "keyturn_agent_store_up", ""); up != 0 {
			t.Errorf("%s: store_up is %v", name, up)
		}
		if err := outage.end(); err != nil {
			t.Fatal(err)
		}
		value = newValue()
		put(t, v, secret, map[string]any{"k": value})
		eventually(t, name+": the new value is rendered afterwards", func() bool { return holds(a.path("key"), value) })
	}
	if n := a.count(func(l logged) bool { return strings.HasPrefix(l.Msg, "the store fails") }); n != 2 {
		t.Errorf("two outages took %d lines", n)
	}
}
