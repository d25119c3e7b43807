package vault

import (
	"fmt"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/vault/api"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/examples/vaulttest"
)

// consul is as much of a Consul as Vault's engine asks: it makes tokens and deletes them.
type consul struct {
	mu   sync.Mutex
	made int
	live map[string]bool
}

func (c *consul) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch r.Method {
	case http.MethodPut:
		c.made++
		accessor := fmt.Sprint("accessor-", c.made)
		c.live[accessor] = true
		fmt.Fprintf(w, `{"AccessorID":%q,"SecretID":"secret-%d"}`, accessor, c.made)
	case http.MethodDelete:
		delete(c.live, strings.TrimPrefix(r.URL.Path, "/v1/acl/token/"))
		io.WriteString(w, "true")
	}
}

func (c *consul) alive() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.live)
}

// leased makes an engine that leases tokens of a Consul for a day, and a role that may have one, whose own tokens are of these
// settings.
func leased(t *testing.T, v *vaulttest.Server, settings map[string]any) (s *Source, p *proxy, backend *consul, path string) {
	t.Helper()
	backend = &consul{live: map[string]bool{}}
	server := httptest.NewServer(backend)
	t.Cleanup(server.Close)
	mount := unique()
	if err := v.Client().Sys().Mount(mount, &api.MountInput{Type: "consul"}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.Client().Sys().Unmount(mount) }) // while its backend can revoke
	write(t, v, mount+"/config/access", map[string]any{"address": strings.TrimPrefix(server.URL, "http://"), "token": "canary"})
	write(t, v, mount+"/roles/app", map[string]any{"consul_policies": []string{"p"}, "ttl": "24h"})
	s, p, _ = appRoleSource(t, v, policy(t, v, unique(), mount+"/creds/app"), settings)
	return s, p, backend, mount + "/creds/app"
}

// What a token leased ends with it. A session that another one follows leaves it in force.
func TestALeaseOutlivesTheSessionThatItWasGivenTo(t *testing.T) {
	v := realVault(t)
	s, p, backend, path := leased(t, v, map[string]any{"token_ttl": "1h"})
	record, err := s.Fetch(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if again := record.RefreshAfter; again < 30*time.Minute || again > 40*time.Minute {
		t.Errorf("again after %v, want two thirds of what its token has to live", again)
	}
	first := s.current.Load()
	first.began = time.Now().Add(-2 * patience)
	checkKind(t, s, "nowhere/x", source.Denied)
	second := s.current.Load()
	if n := p.count("/login"); n != 2 || second == first {
		t.Fatalf("%d logins: the session was not replaced", n)
	}
	if !alive(v, first.token) || backend.alive() != 1 {
		t.Errorf("the token lives on: %t, and so do %d leases of 1", alive(v, first.token), backend.alive())
	}
	// The second has leased nothing.
	second.began, s.doubt = time.Now().Add(-2*patience), doubt{}
	checkKind(t, s, "nowhere/x", source.Denied)
	if s.current.Load() == second || alive(v, second.token) {
		t.Error("a token that leased nothing was not replaced, or not revoked")
	}
}

func TestALeaseIsAskedForAgainBeforeItsTokenEnds(t *testing.T) {
	v := realVault(t)
	s, p, _, path := leased(t, v, map[string]any{"token_ttl": "4s", "token_max_ttl": "6s"})
	for p.count("/login") < 3 {
		next, err := s.Keep(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		record, err := s.Fetch(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		ends, _ := s.TokenExpiry()
		if again := record.RefreshAfter; again <= 0 || again > max(ends.Sub(began), time.Second) {
			t.Errorf("again after %v, and the token ends in %v", again, time.Until(ends))
		}
		time.Sleep(min(next, record.RefreshAfter))
	}
}

func TestALeaseLongerThanTimeCountsIsLong(t *testing.T) {
	s := &session{poll: time.Minute}
	s.life.Store(&life{})
	for duration, want := range map[int64][2]time.Duration{ // of an engine that leases, and of KV version 1
		-1:            {0, 0},
		30:            {20 * time.Second, 30 * time.Second},
		9223372037:    {math.MaxInt64 / 2, 0},
		18446744074:   {math.MaxInt64 / 2, 0},
		math.MaxInt64: {math.MaxInt64 / 2, 0},
		math.MinInt64: {0, 0},
	} {
		body := fmt.Sprintf(`{"lease_id":"x","lease_duration":%d,"data":{"k":"v","ttl":"x"}}`, duration)
		lease := must[*source.Record](t)(s.readOther(mount{}, "db/creds/app", []byte(body)))
		kv := must[*source.Record](t)(s.readOther(mount{kv: 1}, "secret/x", []byte(body)))
		if lease.RefreshAfter < want[0] || want[0] < time.Hour && lease.RefreshAfter != want[0] || kv.RefreshAfter != want[1] {
			t.Errorf("%d s: again after %v and %v, want %v", duration, lease.RefreshAfter, kv.RefreshAfter, want)
		}
	}
}
