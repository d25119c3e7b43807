package vault

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/examples/leaktest"
)

// FuzzNothingThatVaultSaysIsRepeated: whatever answers, the error is one of ours, with a kind, and quotes none of the answer.
func FuzzNothingThatVaultSaysIsRepeated(f *testing.F) {
	const canary = "AQ.Ab8RN6-canary_key.must-not-leak"
	for _, body := range []string{"", "<html>", `{"errors":["permission denied"]}`, `{"errors":["1 error occurred: invalid token"]}`,
		`{"request_id":"x","data":{"metadata":{"deletion_time":"2026-11-24T10:00:00Z"}}}`, `{"errors":["Vault is sealed"]}`} {
		for _, status := range []int{400, 403, 404, 412, 429, 472, 500, 503} {
			f.Add(status, "3", body, "")
		}
	}
	f.Add(404, canary, `{"data":{"metadata":{"deletion_time":"`, `"}}}`)
	f.Add(403, "Mon, 23 Nov 2026 12:00:00 GMT", `{"errors":["`, `"]}`)
	f.Fuzz(func(t *testing.T, status int, wait, before, after string) {
		body := []byte(before + canary + after)
		said := &api.ResponseError{StatusCode: status, HTTPMethod: "GET", URL: "https://vault/v1/" + canary}
		var errs struct{ Errors []string }
		if said.RawError = json.Unmarshal(body, &errs) != nil; said.RawError {
			errs.Errors = []string{string(body)}
		}
		said.Errors = errs.Errors
		answer := &api.Response{Response: &http.Response{
			StatusCode: status, Header: http.Header{"Retry-After": {wait, canary}}, Body: io.NopCloser(bytes.NewReader(body)),
		}}
		c := &client{timeout: time.Second}
		err := outward(context.Background(), c.failed(answer, said))
		e, ok := errors.AsType[*source.Error](err)
		if !ok || e.Kind == "" || e.Reason == "" || e.RetryAfter < 0 || e.RetryAfter > maxRetryAfter {
			t.Fatalf("%#v", err)
		}
		if form, found := leaktest.Find(err.Error()+e.Reason+e.Path, canary); found {
			t.Errorf("the answer is repeated in %q: %s", err, form)
		}
	})
}
