package sourcetest

import (
	"fmt"
	"runtime"
	"testing"
)

func TestAGoodDriverPasses(t *testing.T) {
	Run(t, func(*testing.T) Harness { return &fake{} })
}

// A suite that can't fail proves nothing: for each case there is a driver that fails it.
func TestEachCaseCanFail(t *testing.T) {
	bugs := map[string]string{
		"first read":                          "no versions",
		"unchanged":                           "counts reads",
		"changed":                             "serves the oldest",
		"missing is not_found":                "raw errors",
		"deleted is not_found until restored": "serves what was deleted",
		"permission lost is denied until regained":     "ignores permissions",
		"store down is unavailable until back":         "serves while down",
		"store that fails at one path is failed there": "blames the store",
		"cancelled context ends a slow read":           "doesn't end with its context",
		"cancelled context before the read":            "ignores its context",
		"huge value is invalid":                        "cuts long values",
		"binary value comes as stored":                 "mangles bytes",
		"empty value comes as stored":                  "drops empty values",
		"missing field is invalid":                     "invents fields",
		"field that is no string is invalid":           "prints what is no string",
		"several fields in one read":                   "drops fields",
		"earlier version":                              "has no history",
		"concurrent reads":                             "denies under load",
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			bug, ok := bugs[c.name]
			if !ok {
				t.Fatal("no driver fails this case: give it a bug")
			}
			if r := watch(t, c, &fake{bug: bug}); len(r.failures) == 0 {
				t.Errorf("a driver that %s passes", bug)
			}
		})
	}
}

// recorder stands in for a test and notes its failures.
type recorder struct {
	testing.TB
	failures []string
}

func watch(t *testing.T, c testCase, h Harness) *recorder {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.run(r, h)
	}()
	<-done
	return r
}

func (r *recorder) Error(args ...any) { r.failures = append(r.failures, fmt.Sprint(args...)) }

func (r *recorder) Errorf(format string, args ...any) {
	r.failures = append(r.failures, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatal(args ...any) {
	r.Error(args...)
	runtime.Goexit()
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}
