package e2e

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

const thousand = 1000

// thousandSecrets puts a value into secret/PREFIX/N for each N below a thousand, and returns the entries for AGENT_SECRETS,
// whose files are called fN, the values, and a token that may read them all.
func thousandSecrets(t testing.TB, v *vaulttest.Server) (prefix string, secrets, values []string, token string) {
	t.Helper()
	prefix = unique()
	secrets, values = make([]string, thousand), make([]string, thousand)
	var writers sync.WaitGroup
	for w := range 4 {
		writers.Go(func() {
			for i := w; i < thousand; i += 4 {
				secrets[i], values[i] = fmt.Sprintf("f%d=%s/%d", i, prefix, i), newValue()
				if _, err := v.Client().KVv2("secret").Put(t.Context(), fmt.Sprintf("%s/%d", prefix, i), map[string]any{"k": values[i]}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	return prefix, secrets, values, tokenFile(t, v, allow(t, v, prefix, prefix+"/*"))
}

// Some of a thousand secrets are no good. The others don't notice.
func TestAThousandFilesDoNotShareTheirFailures(t *testing.T) {
	v := plainVault(t)
	prefix, secrets, values, token := thousandSecrets(t, v)
	spoilt := map[string]string{} // file -> what it must wait for
	for i := 0; i < thousand; i += 25 {
		b := brokenSecrets[i/25%(len(brokenSecrets)-1)] // the last takes a policy of its own
		b.spoil(t, v, fmt.Sprintf("%s/%d", prefix, i))
		spoilt[fmt.Sprintf("f%d", i)] = b.waits
	}
	a := newAgent(t, append(reach(v), "AGENT_POLL_INTERVAL=1s"), token, secrets...)
	eventually(t, "all the good ones are rendered, and each bad one says why", func() bool {
		for _, f := range a.readyz(t).Files {
			waits, bad := spoilt[f.File]
			if f.Rendered == bad || bad != (f.Waits != "") || !strings.Contains(f.Waits, waits) {
				return false
			}
		}
		return true
	})
	for i, value := range values {
		file := fmt.Sprintf("f%d", i)
		if _, bad := spoilt[file]; !bad && !holds(a.path(file), value) {
			t.Errorf("%s doesn't hold its value", file)
		}
	}
	for range 2 { // by its file: the metrics of a thousand cost a slow machine more time than an answer has
		value := newValue()
		put(t, v, prefix+"/1", map[string]any{"k": value})
		eventually(t, "one of them is read again", func() bool { return holds(a.path("f1"), value) })
	}
	for file := range spoilt {
		if n := a.count(func(l logged) bool { return l.File == file }); n != 1 {
			t.Errorf("%d lines speak of %s, want 1", n, file)
		}
	}
	if n := a.descriptors(t); n > 48 {
		t.Errorf("%d descriptors are open for %d files", n, thousand)
	}

	value := newValue()
	put(t, v, prefix+"/999", map[string]any{"k": value})
	eventually(t, "one of them follows its secret", func() bool { return holds(a.path("f999"), value) })
	put(t, v, prefix+"/0", map[string]any{"k": value})
	eventually(t, "one that was bad is rendered", func() bool { return holds(a.path("f0"), value) })
	if code := a.stop(t); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if left := names(t, a.dir); len(left) > 0 {
		t.Errorf("%d files are left, among them %q", len(left), left[0])
	}
}

// Every file on its own and all of them at once: after an outage nothing is missed.
func TestAThousandFilesCatchUpAfterAnOutage(t *testing.T) {
	v := vaulttest.ForTest(t, vaulttest.Options{})
	prefix, secrets, values, token := thousandSecrets(t, v)
	a := newAgent(t, append(reach(v), "AGENT_POLL_INTERVAL=2s", "VAULT_CLIENT_TIMEOUT=2s"), token, secrets...).ready(t)
	for i := range 10 {
		values[i*100] = newValue()
		put(t, v, fmt.Sprintf("%s/%d", prefix, i*100), map[string]any{"k": values[i*100]})
	}
	if err := v.Seal(t.Context()); err != nil {
		t.Fatal(err)
	}
	a.failures(t, "sealed", 3)
	if got := names(t, a.dir); len(got) != thousand+1 || !slices.Contains(got, "agent.sock") {
		t.Errorf("%d files stand in the outage, want %d", len(got), thousand)
	}
	if n := a.count(func(l logged) bool { return l.Kind == "sealed" }); n != 1 {
		t.Errorf("the outage took %d lines", n)
	}
	if err := v.Unseal(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "every file has what was written before the outage", func() bool {
		for i, value := range values {
			if !holds(filepath.Join(a.dir, fmt.Sprintf("f%d", i)), value) {
				return false
			}
		}
		return true
	})
}
