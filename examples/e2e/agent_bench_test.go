package e2e

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/examples/vaulttest"
)

// The agent's figures, measured from outside with the binary and the settings that ship. Nothing here fails for being slow.

// settle is how long after it is ready an agent is looked at: its garbage collector and its connections are at rest by then.
const settle = 30 * time.Second

// renders watches dir, which is made, and returns a channel of the names of files that appear or are replaced there.
func renders(b *testing.B, dir string) <-chan string {
	b.Helper()
	if err := os.Mkdir(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	var w *fsnotify.Watcher
	eventually(b, "an inotify instance is free", func() bool {
		var err error
		w, err = fsnotify.NewWatcher()
		return err == nil
	})
	if err := w.Add(dir); err != nil {
		b.Fatal(err)
	}
	names := make(chan string, 16)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for e := range w.Events {
			if name := filepath.Base(e.Name); e.Has(fsnotify.Create) && !strings.HasPrefix(name, ".") && name != "agent.sock" {
				names <- name
			}
		}
	}()
	b.Cleanup(func() {
		w.Close()
		<-done
	})
	return names
}

// await takes a name from a channel.
func await(b *testing.B, names <-chan string) {
	b.Helper()
	select {
	case <-names:
	case <-time.After(patience):
		b.Fatal("no file appears")
	}
}

// oneSecret returns the variables of an agent that renders one secret of v.
func oneSecret(b *testing.B, v *vaulttest.Server) (secret string, environ []string) {
	b.Helper()
	secret, _ = newSecret(b, v)
	return secret, append(reach(v), "AGENT_TOKEN_FILE="+tokenFile(b, v, allow(b, v, unique(), secret)), entries("key="+secret))
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// quantile returns the value below which a share q of all lie.
func quantile(all []time.Duration, q float64) time.Duration {
	slices.Sort(all)
	return all[min(int(q*float64(len(all))), len(all)-1)]
}

func BenchmarkAgentFootprint(b *testing.B) {
	v := tlsVault(b)
	_, environ := oneSecret(b, v)
	environ = append(environ, "AGENT_POLL_INTERVAL=1s")
	for b.Loop() {
		a := startAgent(b, filepath.Join(memory(b), "keys"), environ).started(b).ready(b)
		<-time.After(settle)
		b.ReportMetric(mib(a.resident(b)), "MiB-resident")
		b.ReportMetric(a.load(b, settle), "%-of-a-core")
		a.kill()
	}
	info := must[os.FileInfo](b)(os.Stat(ours.build(b, "agent")))
	b.ReportMetric(mib(info.Size()), "MiB-on-disk")
}

// For each request Vault puts the policies of its token together anew, and its default policy is the largest by far: without
// it Vault itself needs less than half the time.
func BenchmarkAgentThousandFiles(b *testing.B) {
	const starts = 9
	v := plainVault(b)
	prefix, secrets, _, token := thousandSecrets(b, v)
	ours.build(b, "agent")
	for name, token := range map[string]string{"default-policy": token, "own-policy-only": lean(b, v, prefix)} {
		b.Run(name, func(b *testing.B) {
			environ := append(reach(v), "AGENT_TOKEN_FILE="+token, entries(secrets...), "AGENT_POLL_INTERVAL=5s")
			for b.Loop() {
				var took []time.Duration
				var a *agent
				for range starts {
					if a != nil {
						a.kill()
					}
					dir := filepath.Join(memory(b), "keys")
					began := time.Now()
					a = startAgent(b, dir, environ)
					awaitNames(b, dir, thousand+1) // and the socket
					took = append(took, time.Since(began))
				}
				b.ReportMetric(milliseconds(quantile(took, 0.5)), "ms-to-all-p50")
				<-time.After(settle / 2)
				b.ReportMetric(a.load(b, settle), "%-of-a-core")
				b.ReportMetric(mib(a.resident(b)), "MiB-resident")
				a.kill()
			}
		})
	}
}

// lean returns a file with a token that may read secret/PREFIX/*, keep itself alive, and nothing else.
func lean(b *testing.B, v *vaulttest.Server, prefix string) string {
	b.Helper()
	policy := unique()
	rules := `path "secret/data/` + prefix + `/*" { capabilities = ["read"] }
		path "auth/token/lookup-self" { capabilities = ["read"] }
		path "auth/token/renew-self" { capabilities = ["update"] }`
	if err := v.Client().Sys().PutPolicy(policy, rules); err != nil {
		b.Fatal(err)
	}
	request := &api.TokenCreateRequest{Policies: []string{policy}, NoDefaultPolicy: true}
	return file(b, must[*api.Secret](b)(v.Client().Auth().Token().Create(request)).Auth.ClientToken)
}

// awaitNames waits until there are n names in dir that begin with no dot. A watch of so many would take time from who is watched.
func awaitNames(b *testing.B, dir string, n int) {
	b.Helper()
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for found := 0; found < n; {
		select {
		case <-tick.C:
		case <-deadline:
			b.Fatalf("only %d files appear", found)
		}
		found = 0
		d, err := os.Open(dir)
		if err != nil {
			continue // not made yet
		}
		names, err := d.Readdirnames(-1)
		if d.Close(); err != nil {
			b.Fatal(err)
		}
		for _, name := range names {
			if !strings.HasPrefix(name, ".") {
				found++
			}
		}
	}
}

func BenchmarkAgentFirstRender(b *testing.B) {
	for name, vault := range map[string]func(testing.TB) *vaulttest.Server{"http": plainVault, "tls": tlsVault} {
		b.Run(name, func(b *testing.B) {
			_, environ := oneSecret(b, vault(b))
			ours.build(b, "agent")
			var took []time.Duration
			for b.Loop() {
				dir := filepath.Join(memory(b), "keys")
				rendered := renders(b, dir)
				began := time.Now()
				a := startAgent(b, dir, environ)
				await(b, rendered)
				took = append(took, time.Since(began))
				a.kill()
			}
			b.ReportMetric(milliseconds(quantile(took, 0.5)), "ms-p50")
			b.ReportMetric(milliseconds(quantile(took, 0.9)), "ms-p90")
		})
	}
}

func BenchmarkVaultWriteToFile(b *testing.B) {
	const writes = 25
	v := plainVault(b)
	secret, environ := oneSecret(b, v)
	dir := filepath.Join(memory(b), "keys")
	rendered := renders(b, dir)
	startAgent(b, dir, append(environ, "AGENT_POLL_INTERVAL=1s"))
	await(b, rendered)
	var took []time.Duration
	for b.Loop() {
		for range writes {
			<-time.After(rand.N(time.Second)) // at any moment between two reads
			put(b, v, secret, map[string]any{"k": newValue()})
			written := time.Now()
			await(b, rendered)
			took = append(took, time.Since(written))
		}
	}
	b.ReportMetric(milliseconds(quantile(took, 0.5)), "ms-p50")
	b.ReportMetric(milliseconds(quantile(took, 0.9)), "ms-p90")
	b.ReportMetric(milliseconds(quantile(took, 1)), "ms-max")
}
