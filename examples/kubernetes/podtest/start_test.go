//go:build pod

package podtest

import (
	"slices"
	"testing"
	"time"
)

func appWaitsForKey(t *testing.T, w *world) {
	s := w.stage(t, "start")
	s.apply(t, overlay{of: "base", replicas: 1})
	p := s.awaitReason(t, "there is no secret")
	if p.Status.Phase != "Pending" {
		t.Errorf("without a key the pod is %s, not Pending", p.Status.Phase)
	}
	s.rotate(t)
	s.awaitReady(t)
	published := s.logged(t, p.Metadata.Name, "keyturn-agent", "published")
	if started := s.logged(t, p.Metadata.Name, "app", "started"); started.Before(published) {
		t.Errorf("the app started at %v, before the key was rendered at %v", started, published)
	}
	if found := s.restarts(t); len(found) > 0 {
		t.Errorf("containers were restarted: %v", found)
	}
}

// startsInTime measures from apply to Ready, with the agent and with a key that needs none, and compares the quickest of each:
// whatever else the machine does only adds.
func startsInTime(t *testing.T, w *world) {
	with, without := overlay{of: "base", replicas: 1}, overlay{of: "base", replicas: 1}
	without.patches = []patch{
		{kind: "Deployment", name: "keyturn", patch: []any{map[string]any{"op": "remove", "path": "/spec/template/spec/initContainers"}}},
		{patch: container("app", map[string]any{"env": []any{variable("APP_KEY_FILE", ""), variable("GEMINI_API_KEY", "AQ.static")}})},
	}
	const allowed, least, most = 3 * time.Second, 3, 8
	var took [2][]time.Duration
	extra := allowed + 1
	for n := 0; n < least || n < most && extra > allowed; n++ {
		for i, o := range []overlay{with, without} {
			s := w.stage(t, "time")
			s.rotate(t)
			began := time.Now()
			s.apply(t, o)
			s.awaitReady(t)
			took[i] = append(took[i], time.Since(began).Round(time.Millisecond))
		}
		extra = slices.Min(took[0]) - slices.Min(took[1])
	}
	t.Logf("from apply to Ready: %v with the agent, %v without", took[0], took[1])
	if extra > allowed {
		t.Errorf("the agent adds %v to the start", extra)
	}
}
