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
	w := must[*fsnotify.Watcher](b)(fsnotify.NewBufferedWatcher(4 * thousand))
	if err := w.Add(dir); err != nil {
		b.Fatal(err)
	}
	names := make(chan string, 4*thousand)
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

// await takes n names from a channel.
func await(b *testing.B, names <-chan string, n int) {
	b.Helper()
	deadline := time.After(patience)
	for range n {
		select {
		case <-names:
		case <-deadline:
			b.Fatal("the files don't appear")
		}
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

func BenchmarkAgentThousandFiles(b *testing.B) {
	v := plainVault(b)
	_, secrets, _, token := thousandSecrets(b, v)
	environ := append(reach(v), "AGENT_TOKEN_FILE="+token, entries(secrets...), "AGENT_POLL_INTERVAL=5s")
	ours.build(b, "agent")
	for b.Loop() {
		dir := filepath.Join(memory(b), "keys")
		rendered := renders(b, dir)
		began := time.Now()
		a := startAgent(b, dir, environ)
		await(b, rendered, thousand)
		b.ReportMetric(milliseconds(time.Since(began)), "ms-to-all")
		<-time.After(settle / 2)
		b.ReportMetric(a.load(b, settle), "%-of-a-core")
		b.ReportMetric(mib(a.resident(b)), "MiB-resident")
		a.kill()
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
				await(b, rendered, 1)
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
	await(b, rendered, 1)
	var took []time.Duration
	for b.Loop() {
		for range writes {
			<-time.After(rand.N(time.Second)) // at any moment between two reads
			put(b, v, secret, map[string]any{"k": newValue()})
			written := time.Now()
			await(b, rendered, 1)
			took = append(took, time.Since(written))
		}
	}
	b.ReportMetric(milliseconds(quantile(took, 0.5)), "ms-p50")
	b.ReportMetric(milliseconds(quantile(took, 0.9)), "ms-p90")
	b.ReportMetric(milliseconds(quantile(took, 1)), "ms-max")
}
