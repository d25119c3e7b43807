//go:build pod

// Package podtest runs the pod of examples/kubernetes on a real Kubernetes, with a real Vault and the Gemini stand-in beside
// it. "make pod-test" runs it.
//
// Without KUBECONFIG it makes a cluster of its own with examples/devcluster. With it, that cluster is used, and two more
// variables say how: POD_TEST_HOST is an address of this machine that the cluster's pods reach, and POD_TEST_LOAD is a command
// that loads the archive of an image from its stdin ("ctr -n k8s.io images import -" on its only node, for instance). What
// needs to look into the node is left out there, and says so.
//
// Where it can't run it is skipped; with CI=true that is a failure.
package podtest

import (
	"testing"
)

// cases run side by side, each in a namespace of its own.
var cases = []struct {
	name string
	test func(*testing.T, *world)
}{
	{"the kubelet renews the token, and the next login uses the new one", tokenIsRenewed}, // takes the longest
	{"the app starts only once its key is rendered", appWaitsForKey},
	{"the agent logs in as its service account, by TokenReview", loginByTokenReview},
	{"a rotation reaches the app, and no container restarts", rotationReachesApp},
	{"the agent is killed, and no request fails", agentIsKilled},
	{"a rolling update fails no request", rollingUpdate},
	{"a deleted pod ends the app first, then the agent, and leaves nothing", deletedPod},
	{"the namespace enforces the restricted profile", restrictedProfile},
	{"the app has nothing to log in to Vault with", appHasNoToken},
	{"an app that is not ours becomes a keyturn pod", foreignApp},
	{"every kind of workload takes the component, and a Job completes", everyKind},
	{"a role that Vault doesn't know", wrongRole},
	{"a token for another audience", wrongAudience},
	{"no token is mounted", noToken},
	{"Vault can't be reached", noVault},
}

func TestPod(t *testing.T) {
	w := open(t)
	t.Run("the agent adds at most 3 s to the start", func(t *testing.T) { startsInTime(t, w) }) // alone, since it measures
	watch := w.watchAgents(t)
	t.Run("cases", func(t *testing.T) {
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				c.test(t, w)
			})
		}
	})
	t.Run("every agent stays within its requests and limits", watch.check)
}
