package main

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// agentThat answers /readyz as an agent that has rendered its file after a number of questions.
func agentThat(t *testing.T, rendersAfter int64) (c Config, asked *atomic.Int64) {
	asked = new(atomic.Int64)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) > rendersAfter {
			w.Write([]byte(`{"ready":true,"files":[{"file":"key","rendered":true}]}`))
			return
		}
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte(`{"ready":false,"files":[{"file":"key","rendered":false,"waits_for":"Vault is sealed"}]}`))
	}))
	t.Cleanup(server.Close)
	return Config{Listen: strings.TrimPrefix(server.URL, "http://")}, asked
}

func TestHealthAsksOnceUnlessItIsToldToWait(t *testing.T) {
	c, asked := agentThat(t, 2)
	if err := health(t.Context(), c, 0); err == nil || !strings.Contains(err.Error(), "key: Vault is sealed") || asked.Load() != 1 {
		t.Errorf("after %d questions: %v", asked.Load(), err)
	}
	if err := health(t.Context(), c, time.Minute); err != nil || asked.Load() != 3 {
		t.Errorf("after %d questions: %v", asked.Load(), err)
	}
}

func TestHealthThatWaitsInVainSaysWhy(t *testing.T) {
	c, asked := agentThat(t, 1<<20)
	began := time.Now()
	err := health(t.Context(), c, 3*lookAgain)
	if err == nil || !strings.Contains(err.Error(), "key: Vault is sealed") || asked.Load() < 2 || time.Since(began) > 10*lookAgain {
		t.Errorf("after %d questions and %v: %v", asked.Load(), time.Since(began), err)
	}
}

func TestOnlyAWholeDurationIsPatience(t *testing.T) {
	for _, arg := range []string{"-wait", "-wait=", "-wait=8", "-wait=-1s", "-wait=2h", "wait=8s", "-json"} {
		if wait, ok := patience([]string{"health", arg}); ok {
			t.Errorf("health %s waits %v", arg, wait)
		}
	}
	if wait, ok := patience([]string{"health", "-wait=8s"}); !ok || wait != 8*time.Second {
		t.Errorf("health -wait=8s waits %v (%v)", wait, ok)
	}
	if _, ok := patience([]string{"status", "-wait=8s"}); ok {
		t.Error("status takes -wait")
	}
}
