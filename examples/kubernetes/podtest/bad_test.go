//go:build pod

package podtest

import (
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/keyturn/keyturn/examples/porttest"
)

func wrongRole(t *testing.T, w *world) {
	s := w.stage(t, "role")
	s.rotate(t)
	role := s.name + "-other"
	s.apply(t, overlay{of: "base", replicas: 1, agent: map[string]string{"AGENT_AUTH_ROLE": role}})
	p := s.awaitReason(t, "log in at auth/kubernetes: there is no such role: mend AGENT_AUTH_ROLE")
	s.allow(t, role, "vault")
	s.startsByItself(t, p)
}

func wrongAudience(t *testing.T, w *world) {
	s := w.stage(t, "audience")
	s.rotate(t)
	s.allow(t, s.name, "somebody-else")
	s.apply(t, overlay{of: "base", replicas: 1})
	p := s.awaitReason(t, "log in at auth/kubernetes: the token in AGENT_JWT_FILE is for another audience: mend the token's, or the role's")
	s.allow(t, s.name, "vault")
	s.startsByItself(t, p)
}

// noToken mends what only another pod can mend. The Deployment replaces the one that waits.
func noToken(t *testing.T, w *world) {
	s := w.stage(t, "unmounted")
	s.rotate(t)
	s.apply(t, overlay{of: "base", replicas: 1, patches: []patch{{kind: "Deployment", name: "keyturn", patch: []any{
		map[string]any{"op": "remove", "path": "/spec/template/spec/initContainers/0/volumeMounts/1"}}}}})
	s.awaitReason(t, "/run/secrets/keyturn/token is missing: write it, or set AGENT_JWT_FILE to another")
	s.apply(t, overlay{of: "base", replicas: 1})
	s.awaitReady(t)
}

func noVault(t *testing.T, w *world) {
	s := w.stage(t, "unreachable")
	s.rotate(t)
	address := porttest.Reserve(t, s.host)
	s.apply(t, overlay{of: "base", replicas: 1, agent: map[string]string{"VAULT_ADDR": "http://" + address}})
	p := s.awaitReason(t, "no connection to Vault at "+address+": check VAULT_ADDR, and that Vault runs")
	forward(t, address, strings.TrimPrefix(s.vault.Addr, "http://"))
	s.startsByItself(t, p)
}

// startsByItself sees the pod that waited become ready.
func (s *stage) startsByItself(t *testing.T, waited pod) {
	t.Helper()
	s.awaitReady(t)
	if now := s.onePod(t); now.Metadata.UID != waited.Metadata.UID {
		t.Error("another pod has taken the place of the one that waited")
	}
	if found := s.restarts(t); len(found) > 0 {
		t.Errorf("containers were restarted: %v", found)
	}
}

// forward lets connections to one address through to another, until the test ends.
func forward(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			both := func(a, b net.Conn) { io.Copy(a, b); a.Close(); b.Close() }
			work.Go(func() { both(in, out) })
			work.Go(func() { both(out, in) })
		}
	})
	// Connections that are open end with the pods, whose namespace is deleted after this.
	t.Cleanup(func() { l.Close() })
}
