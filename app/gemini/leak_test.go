package gemini_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/keyturn/keyturn/app/gemini"
	"github.com/keyturn/keyturn/app/gemini/geminitest"
)

func TestAThousandKeysLeaveNothingBehind(t *testing.T) {
	for _, sdk := range gemini.SDKs() { // one after the other: the process is what is measured
		api := geminitest.NewServer()
		backend := newBackend(t, sdk, api.URL)
		turn := func(from, to int) (goroutines, files, connections int) {
			for i := from; i < to; i++ {
				name := fmt.Sprintf("key-%d", i)
				api.Add(name)
				client := backend.Client(newKey(t, name))
				if _, err := client.Generate(t.Context(), prompt); err != nil {
					t.Fatal(err)
				}
				if _, err := collect(t.Context(), client, prompt); err != nil {
					t.Fatal(err)
				}
			}
			_, connections = api.Connections()
			return runtime.NumGoroutine(), openFiles(t), connections
		}
		goroutines, files, connections := turn(0, 10)
		goroutinesAfter, filesAfter, connectionsAfter := turn(10, 1000)
		t.Logf("%s: goroutines %d -> %d, open files %d -> %d, connections ever %d -> %d", sdk,
			goroutines, goroutinesAfter, files, filesAfter, connections, connectionsAfter)
		if connectionsAfter != connections || filesAfter > files {
			t.Errorf("%s: they grew", sdk)
		}
		eventually(t, "the goroutines are as many as before (net/http's come and go)", func() bool {
			return runtime.NumGoroutine() <= goroutines
		})
		backend.Close()
		api.Close()
	}
}

func TestABackendStartsNoGoroutineAndDialsNobody(t *testing.T) {
	before := goleak.IgnoreCurrent()
	// Whatever would use a proxy or Google's own hosts ends here, and is heard of.
	proxy := geminitest.NewServer()
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("HTTP_PROXY", proxy.URL)
	for _, sdk := range gemini.SDKs() {
		for range 10 {
			backend, err := gemini.New(t.Context(), gemini.Config{SDK: sdk})
			if err != nil {
				t.Fatal(err)
			}
			backend.Client(newKey(t, canary))
			backend.Close()
		}
	}
	if _, total := proxy.Connections(); total != 0 {
		t.Errorf("%d connections were made", total)
	}
	proxy.Close()
	goleak.VerifyNone(t, before)
}

func TestStreamsThatAreLeftEarlyLeaveNothingBehind(t *testing.T) {
	before := goleak.IgnoreCurrent()
	for _, sdk := range gemini.SDKs() {
		api := geminitest.NewServer()
		api.Add(canary)
		backend := newBackend(t, sdk, api.URL)
		client := backend.Client(newKey(t, canary))
		for range 50 {
			for range client.Stream(t.Context(), prompt) {
				break
			}
		}
		backend.Close()
		eventually(t, "the connections are gone", func() bool { open, _ := api.Connections(); return open == 0 })
		api.Close()
	}
	goleak.VerifyNone(t, before)
}

func TestTheEnvironmentChangesNothing(t *testing.T) {
	elsewhere := geminitest.NewServer()
	defer elsewhere.Close()
	for _, name := range []string{"GOOGLE_API_KEY", "GEMINI_API_KEY"} {
		t.Setenv(name, "key-of-the-environment")
	}
	for _, name := range []string{"GOOGLE_GENAI_USE_VERTEXAI", "GOOGLE_GENAI_USE_ENTERPRISE", "GOOGLE_API_USE_CLIENT_CERTIFICATE",
		"GOOGLE_API_GO_EXPERIMENTAL_ENABLE_NEW_AUTH_LIB"} {
		t.Setenv(name, "true")
	}
	for _, name := range []string{"GOOGLE_GEMINI_BASE_URL", "GOOGLE_VERTEX_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		t.Setenv(name, elsewhere.URL)
	}
	t.Setenv("GOOGLE_CLOUD_PROJECT", "another-project")
	t.Setenv("GOOGLE_CLOUD_LOCATION", "nowhere1")
	t.Setenv("GOOGLE_API_USE_MTLS_ENDPOINT", "always")
	t.Setenv("GOOGLE_CLOUD_UNIVERSE_DOMAIN", "example.com")
	t.Setenv("GOOGLE_APPLICATION_CREDENTIALS", "/nonexistent")
	for _, sdk := range gemini.SDKs() {
		api := geminitest.NewServer()
		api.Add(canary)
		client := newBackend(t, sdk, api.URL).Client(newKey(t, canary))
		for name, do := range calls {
			if err := do(t.Context(), client); err != nil {
				t.Errorf("%s, %s: %v", sdk, name, err)
			}
		}
		if got := api.Served(1); got != len(calls) {
			t.Errorf("%s: the configured endpoint served %d calls, want %d", sdk, got, len(calls))
		}
		api.Close()
	}
	if _, total := elsewhere.Connections(); total != 0 {
		t.Errorf("the endpoint in the environment got %d connections", total)
	}
}

func TestABadConfigIsAnErrorThatQuotesNothing(t *testing.T) {
	for _, config := range []gemini.Config{
		{SDK: "langchain"},
		{Model: "models/gemini-3.8-flash"},
		{Model: "../../other?key=" + canary},
		{BaseURL: "https://user:" + canary + "@example.com"},
		{BaseURL: "https://example.com/?key=" + canary},
		{BaseURL: "http://example.com"},
	} {
		_, err := gemini.New(context.Background(), config)
		if err == nil {
			t.Errorf("%+v was taken", config)
		} else if strings.Contains(err.Error(), canary) {
			t.Errorf("the error shows what was configured: %v", err)
		}
	}
}

func TestHundredsOfCallsAtOnceKeepTheirConnections(t *testing.T) {
	const atOnce = 300
	for _, sdk := range gemini.SDKs() {
		api := geminitest.NewServer()
		api.Add(canary)
		client := newBackend(t, sdk, api.URL).Client(newKey(t, canary))
		round := func() int {
			done := make(chan error, atOnce)
			for range atOnce {
				go func() { _, err := client.Generate(t.Context(), prompt); done <- err }()
			}
			for range atOnce {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			_, total := api.Connections()
			return total
		}
		for range 3 {
			round()
		}
		if total := round(); total > 2*atOnce {
			t.Errorf("%s: %d connections for %d calls at once: they are not kept", sdk, total, atOnce)
		}
		api.Close()
	}
}

// openFiles counts the descriptors of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc/self/fd here")
	}
	return len(entries)
}
