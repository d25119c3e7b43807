package e2e

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// networkFaults happen to the connections between agent and Vault.
var networkFaults = []fault{
	feltAfter(never, toxic("latency", "each answer of Vault comes a second late", "latency", map[string]any{"latency": 1000})),
	feltAfter(timeout, toxic("slow drip", "Vault's answers come in pieces of 8 bytes, five a second", "slicer",
		map[string]any{"average_size": 8, "size_variation": 1, "delay": 200_000})),
	toxic("reset", "each connection to Vault is reset", "reset_peer", map[string]any{"timeout": 0}),
	toxic("answers cut short", "connections break off after 100 bytes", "limit_data", map[string]any{"bytes": 100}),
	{
		name: "cut", did: "nobody listens where Vault was", setting: setting{way: proxied},
		strike: func(w *world) { w.proxy.listens(w.t, false) },
		mend:   func(w *world) { w.proxy.listens(w.t, true) },
	},
	{
		name: "half-open", did: "connections stand, and nothing comes through them, nor ever will", setting: setting{way: forgotten}, felt: timeout,
		strike: func(w *world) { w.lossy.lose(true) },
		mend:   func(w *world) { w.lossy.lose(false) },
	},
	{
		name: "half-open for a moment", did: "the connection that a question came over is silent for ever, while new ones work", setting: setting{way: forgotten}, felt: never,
		strike: func(w *world) {
			w.lossy.lose(true)
			eventually(w.t, "a question is lost", func() bool { return w.lossy.lost() > 0 })
			w.lossy.lose(false)
		},
	},
}

// timeout is how long the agent waits for a read, asks whether it is the store or the secret, and then some.
const timeout = 14 * time.Second

func feltAfter(d time.Duration, f fault) fault {
	f.felt = d
	return f
}

// toxic is a fault that the fault proxy makes alone.
func toxic(name, did, kind string, attributes map[string]any) fault {
	return fault{
		name: name, did: did, setting: setting{way: proxied},
		strike: func(w *world) { w.proxy.add(w.t, kind, attributes) },
		mend:   func(w *world) { w.proxy.remove(w.t) },
	}
}

// limited is how long a rate limit asks to be left alone.
const limited = 3 * time.Second

// answerFaults are answers that come from Vault's address and are none of Vault's good ones.
var answerFaults = []fault{
	answer("429", "a rate limit, without Retry-After", func(w http.ResponseWriter, _ *http.Request) {
		vaultError(w, http.StatusTooManyRequests, "request path \"sys\": rate limit quota exceeded")
	}),
	withWait(limited, answer("429 with Retry-After", fmt.Sprintf("a rate limit that asks for %.0f s", limited.Seconds()), func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Retry-After", fmt.Sprint(limited.Seconds()))
		vaultError(w, http.StatusTooManyRequests, "request path \"sys\": rate limit quota exceeded")
	})),
	answer("truncated", "half an answer, of a length that was promised in full", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "400")
		io.WriteString(w, `{"request_id":"x","data":{"data":{"k":"`)
		panic(http.ErrAbortHandler)
	}),
	answer("no JSON", "HTTP 200, and text", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "it works") }),
	answer("half of the JSON", "HTTP 200, and JSON that ends in the middle", func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"request_id":"x","data":{"data":{"k":"`)
	}),
	answer("huge", "HTTP 200, and 64 MiB", func(w http.ResponseWriter, _ *http.Request) {
		piece := strings.Repeat("x", 1<<20)
		io.WriteString(w, `{"data":{"data":{"k":"`)
		for range 64 {
			if _, err := io.WriteString(w, piece); err != nil {
				return
			}
		}
	}),
	answer("HTML, HTTP 502", "a proxy's error page", func(w http.ResponseWriter, _ *http.Request) { page(w, http.StatusBadGateway) }),
	answer("HTML, HTTP 200", "a captive portal", func(w http.ResponseWriter, _ *http.Request) { page(w, http.StatusOK) }),
	answer("HTML, HTTP 403", "a firewall's page", func(w http.ResponseWriter, _ *http.Request) { page(w, http.StatusForbidden) }),
}

func answer(name, did string, h http.HandlerFunc) fault {
	return fault{
		name: name, did: did,
		strike: func(w *world) { w.front.answer(h) },
		mend:   func(w *world) { w.front.answer(nil) },
	}
}

func withWait(d time.Duration, f fault) fault {
	f.wait = d
	return f
}

func vaultError(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	fmt.Fprintf(w, "{\"errors\":[%q]}\n", text)
}

func page(w http.ResponseWriter, status int) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	io.WriteString(w, "<html><body><h1>Something went wrong</h1></body></html>")
}
