package vault

import (
	"cmp"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
)

// silent makes a proxy lose track of the connection that the next question comes over: whatever is asked there has no answer.
func (p *proxy) silent() (unanswered func() int) {
	var mu sync.Mutex
	var lost string
	var n int
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		lost = cmp.Or(lost, r.RemoteAddr)
		isLost := lost == r.RemoteAddr
		if isLost {
			n++
		}
		mu.Unlock()
		if isLost {
			<-r.Context().Done()
			return
		}
		p.forward.ServeHTTP(w, r)
	})
	return func() int {
		mu.Lock()
		defer mu.Unlock()
		return n
	}
}

func TestAQuestionWhoseConnectionIsSilentIsPutAgainOverAnother(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	unanswered := p.silent()
	began := time.Now()
	expect(t, s, path, "one")
	if took := time.Since(began); took < late || took > 2*late {
		t.Errorf("the answer came after %v, want it soon after %v", took, late)
	}
	if n := unanswered(); n != 1 {
		t.Errorf("%d questions went over the silent connection, want 1", n)
	}
	p.forget()
	expect(t, s, path, "one")
	if n := p.count("GET"); n != 1 {
		t.Errorf("%d questions for a read that is answered in time", n)
	}
}

// A store that is silent as a whole isn't asked more and more: of many who wait, one at a time asks again.
func TestManyWhoWaitInSilenceAskLittle(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_CLIENT_TIMEOUT", "5s")
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	p.forget()
	p.makeHang()
	const readers = 8
	var reading sync.WaitGroup
	for range readers {
		reading.Go(func() { checkKind(t, s, path, source.Unavailable) })
	}
	reading.Wait()
	// Those that came first, one again every 1.5 s of the five, and a second opinion each.
	if n, most := p.count("GET"), readers+4+readers; n > most {
		t.Errorf("%d questions, want at most %d", n, most)
	}
	p.resume()
	expect(t, s, path, "one")
}

// A store that is slow, and not silent, answers the first question: it would never answer one that is given less time.
func TestASlowAnswerIsWaitedFor(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	p.answer(func(w http.ResponseWriter, r *http.Request) { p.forwardAfter(2*late, w, r) })
	began := time.Now()
	expect(t, s, path, "one")
	if took := time.Since(began); took > 5*late/2 {
		t.Errorf("it took %v to get an answer that takes %v", took, 2*late)
	}
}

// What becomes of a second question, over a connection that fails, is no reason to give up the first.
func TestASecondQuestionThatFailsEndsNothing(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	var asked atomic.Int64
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		p.forwardAfter(3*late, w, r)
	})
	expect(t, s, path, "one")
	if n := asked.Load(); n > 4 {
		t.Errorf("%d questions within %v, want one every %v", n, 3*late, late)
	}
}

// What may change something in Vault is asked once: a login may use up its credential, and an engine makes a lease each time.
func TestOnlyWhatChangesNothingIsPutAgain(t *testing.T) {
	v := realVault(t)
	t.Setenv("VAULT_CLIENT_TIMEOUT", "4s")
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	p.silentAt("/login")
	checkKind(t, s, path, source.Unavailable)
	if n := p.count("/login"); n != 1 {
		t.Errorf("%d logins are under way, want 1", n)
	}

	s, p = root(t)
	t.Setenv("VAULT_CLIENT_TIMEOUT", "4s")
	p.silentAt("/v1/cubbyhole/x")
	checkKind(t, s, "cubbyhole/x", source.Failed)
	if n := p.count("/v1/cubbyhole/x"); n != 1 {
		t.Errorf("%d reads of an engine that is no KV are under way, want 1", n)
	}
}
