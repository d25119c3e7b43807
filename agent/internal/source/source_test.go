package source

import (
	"bytes"
	"errors"
	"testing"

	"github.com/keyturn/keyturn/agent/internal/secret"
)

func TestAFailureSaysWhoIsConcerned(t *testing.T) {
	for kind, want := range map[Kind]bool{
		Unavailable: true, Sealed: true, RateLimited: true, Unauthenticated: true,
		Failed: false, Denied: false, NotFound: false, Invalid: false, "": false,
	} {
		if got := kind.StoreWide(); got != want {
			t.Errorf("%q concerns every path: %t, want %t", kind, got, want)
		}
	}
	for _, c := range []struct {
		err  Error
		want string
	}{
		{Error{Kind: Sealed, Reason: "Vault is sealed: unseal it"}, "Vault is sealed: unseal it"},
		{Error{Kind: Denied, Path: "secret/gemini", Reason: "permission denied"}, "secret/gemini: permission denied"},
	} {
		if got := c.err.Error(); got != c.want {
			t.Errorf("%q, want %q", got, c.want)
		}
	}
}

func TestARecordGivesEachFieldOrSaysWhyNot(t *testing.T) {
	long := secret.New(bytes.Repeat([]byte("v"), MaxValue+1))
	r := NewRecord("secret/gemini", map[string]secret.Value{
		"good": secret.New([]byte("one")), "empty": secret.New(nil), "number": {}, "long": long,
		"limit": secret.New(long.Reveal()[:MaxValue]),
	})
	for field, good := range map[string]bool{"good": true, "empty": true, "limit": true, "number": false, "long": false, "none": false} {
		v, err := r.Value(field)
		e, ok := errors.AsType[*Error](err)
		if good && err != nil || !good && (!ok || e.Kind != Invalid || e.Path != "secret/gemini" || !v.IsZero()) {
			t.Errorf("field %s: %v", field, err)
		}
	}
	held, err := r.Value("good")
	if err != nil {
		t.Fatal(err)
	}
	r.Clear()
	if !held.IsZero() {
		t.Error("a cleared record still holds its values")
	}
}
