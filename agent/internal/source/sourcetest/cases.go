package sourcetest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

var cases = []testCase{
	{"first read", firstRead},
	{"unchanged", unchanged},
	{"changed", changed},
	{"missing is not_found", missing},
	{"deleted is not_found until restored", deletedAndRestored},
	{"permission lost is denied until regained", permissionLostAndRegained},
	{"store down is unavailable until back", storeDownAndBack},
	{"store that fails at one path is failed there", failedAlone},
	{"cancelled context ends a slow read", slowAndCancelled},
	{"cancelled context before the read", cancelledBefore},
	{"huge value is invalid", hugeValue},
	{"binary value comes as stored", binaryValue},
	{"empty value comes as stored", emptyValue},
	{"missing field is invalid", missingField},
	{"field that is no string is invalid", notAString},
	{"several fields in one read", severalFields},
	{"earlier version", earlierVersion},
	{"concurrent reads", concurrentReads},
}

// bound is what "promptly" means: far above what a working driver needs, far below any timeout of a request.
const bound = 2 * time.Second

func firstRead(t testing.TB, h Harness) {
	put(h, "one")
	version := expect(t, h, "one")
	if h.Versioned() && (version.Number == 0 || version.Created.IsZero()) {
		t.Errorf("the version is %v, created %v: the store says more", version, version.Created)
	}
}

func unchanged(t testing.TB, h Harness) {
	put(h, "one")
	first, second := expect(t, h, "one"), expect(t, h, "one")
	if first.Number != second.Number || !first.Created.Equal(second.Created) {
		t.Errorf("nothing was written, and the version went from %v to %v", first, second)
	}
}

func changed(t testing.TB, h Harness) {
	put(h, "one")
	first := expect(t, h, "one")
	put(h, "two")
	second := expect(t, h, "two")
	if !h.Versioned() {
		return
	}
	if first.Number == second.Number {
		t.Errorf("both values have version %v", first)
	}
	if !first.Before(second) || second.Before(first) {
		t.Errorf("versions %v and %v are not ordered by their creation", first, second)
	}
}

func missing(t testing.TB, h Harness) { expectKind(t, h, source.NotFound) }

func deletedAndRestored(t testing.TB, h Harness) {
	put(h, "one")
	expect(t, h, "one")
	h.Delete()
	expectKind(t, h, source.NotFound)
	expectKind(t, h, source.NotFound)
	h.Restore()
	expect(t, h, "one")
}

func permissionLostAndRegained(t testing.TB, h Harness) {
	put(h, "one")
	expect(t, h, "one")
	h.Deny()
	expectKind(t, h, source.Denied)
	expectKind(t, h, source.Denied)
	h.Allow()
	expect(t, h, "one")
}

func storeDownAndBack(t testing.TB, h Harness) {
	put(h, "one")
	expect(t, h, "one")
	h.Stop()
	expectKind(t, h, source.Unavailable)
	expectKind(t, h, source.Unavailable)
	h.Start()
	expect(t, h, "one")
}

func failedAlone(t testing.TB, h Harness) {
	breaker, ok := h.(Breaker)
	if !ok {
		t.Skip("the store fails at all paths or at none")
	}
	put(h, "one")
	expect(t, h, "one")
	breaker.Break()
	expectKind(t, h, source.Failed)
	breaker.Mend()
	expect(t, h, "one")
}

func slowAndCancelled(t testing.TB, h Harness) {
	put(h, "one")
	expect(t, h, "one")
	waiting := h.Hang()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	outcome := make(chan error, 1)
	go func() { outcome <- fetchWith(ctx, h) }()
	select {
	case <-waiting:
	case err := <-outcome:
		h.Resume()
		t.Fatalf("the read didn't wait for the store: %v", err)
	}
	cancel()
	select {
	case err := <-outcome:
		checkCancelled(t, err)
	case <-time.After(bound):
		t.Errorf("the read goes on %v after its context ended", bound)
		h.Resume()
		<-outcome
		return
	}
	h.Resume()
	expect(t, h, "one")
}

func cancelledBefore(t testing.TB, h Harness) {
	put(h, "one")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	checkCancelled(t, fetchWith(ctx, h))
	expect(t, h, "one")
}

func hugeValue(t testing.TB, h Harness) {
	limit := strings.Repeat("v", source.MaxValue)
	h.Put(map[string]any{field: limit + "v", "small": "one", "limit": limit})
	record := fetch(t, h)
	_, err := record.Value(field)
	checkError(t, err, source.Invalid, h.Path())
	expectField(t, record, "small", "one")
	expectField(t, record, "limit", limit)
}

func binaryValue(t testing.TB, h Harness) {
	var all strings.Builder
	for c := range rune(0x300) {
		all.WriteRune(c)
	}
	all.WriteString("\u2028\u2029\uFEFF\uFFFD\U0001F511</script>\"\\\r\n ")
	put(h, all.String())
	expect(t, h, all.String())
}

func emptyValue(t testing.TB, h Harness) {
	put(h, "")
	expect(t, h, "")
}

func missingField(t testing.TB, h Harness) {
	h.Put(map[string]any{"other": "one"})
	record := fetch(t, h)
	_, err := record.Value(field)
	checkError(t, err, source.Invalid, h.Path())
	expectField(t, record, "other", "one")
}

func notAString(t testing.TB, h Harness) {
	odd := map[string]any{"number": 7, "object": map[string]any{"k": "v"}, "list": []string{"v"}, "flag": true, field: "one"}
	h.Put(odd)
	record := fetch(t, h)
	for name := range odd {
		if name != field {
			_, err := record.Value(name)
			checkError(t, err, source.Invalid, h.Path())
		}
	}
	expectField(t, record, field, "one")
}

func severalFields(t testing.TB, h Harness) {
	h.Put(map[string]any{"first": "one", "second": "two"})
	record := fetch(t, h)
	expectField(t, record, "first", "one")
	expectField(t, record, "second", "two")
}

func earlierVersion(t testing.TB, h Harness) {
	historian, ok := h.Source().(source.Historian)
	if !ok || !h.Versioned() {
		t.Skip("the store keeps no earlier versions")
	}
	put(h, "one")
	first := expect(t, h, "one")
	put(h, "two")
	record, err := historian.FetchVersion(t.Context(), h.Path(), first.Number)
	if err != nil {
		t.Fatalf("fetch version %v: %v", first, err)
	}
	defer record.Clear()
	expectField(t, record, field, "one")
	if record.Version.Number != first.Number {
		t.Errorf("version %v says that it is %v", first, record.Version)
	}
	_, err = historian.FetchVersion(t.Context(), h.Path(), first.Number+99)
	checkError(t, err, source.NotFound, h.Path())
}

func concurrentReads(t testing.TB, h Harness) {
	const readers, reads = 32, 8
	put(h, "one")
	outcomes := make(chan error, readers)
	for range readers {
		go func() {
			for range reads {
				if err := fetchWith(t.Context(), h); err != nil {
					outcomes <- err
					return
				}
			}
			outcomes <- nil
		}()
	}
	for range readers {
		if err := <-outcomes; err != nil {
			t.Errorf("one of %d concurrent reads: %v", readers, err)
		}
	}
}

func fetchWith(ctx context.Context, h Harness) error {
	record, err := h.Source().Fetch(ctx, h.Path())
	if err != nil {
		return err
	}
	defer record.Clear()
	_, err = record.Value(field)
	return err
}

func checkCancelled(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, context.Canceled) {
		t.Errorf("the context was cancelled, and the read says: %v", err)
	}
}

// checkError wants an *Error of that kind that says where and why, fit for a log line.
func checkError(t testing.TB, err error, want source.Kind, path string) {
	t.Helper()
	e, ok := errors.AsType[*source.Error](err)
	if !ok {
		t.Fatalf("%v (%T), want a *source.Error of kind %s", err, err, want)
	}
	if e.Kind != want {
		t.Errorf("%v is of kind %s, want %s", err, e.Kind, want)
	}
	if e.Path != path && !e.Kind.StoreWide() {
		t.Errorf("%v speaks of the path %q, want %q", err, e.Path, path)
	}
	if e.Reason == "" || strings.ContainsAny(e.Reason, "\n\r") || strings.HasSuffix(e.Reason, ".") {
		t.Errorf("the reason %q is not one line without a full stop", e.Reason)
	}
}
