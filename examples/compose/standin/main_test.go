package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/keyturn/keyturn/app/gemini/geminitest"
)

func TestOnlyKeysWithThePrefixAreAccepted(t *testing.T) {
	handler := local(geminitest.New())
	for key, want := range map[string]int{"local-1": http.StatusOK, "other": http.StatusBadRequest, "": http.StatusForbidden} {
		request := httptest.NewRequest(http.MethodGet, "/v1beta/models", nil)
		if key != "" {
			request.Header.Set("X-Goog-Api-Key", key)
		}
		answer := httptest.NewRecorder()
		handler.ServeHTTP(answer, request)
		if answer.Code != want {
			t.Errorf("key %q: %d, want %d", key, answer.Code, want)
		}
	}
}
