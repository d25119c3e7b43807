package vault

import (
	"cmp"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/keyturn/keyturn/agent/internal/source"
	"github.com/keyturn/keyturn/examples/lagtest"
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
	began, clock := time.Now(), lagtest.Start(t)
	expect(t, s, path, "one")
	if least, most := time.Since(began), clock.Took(); least < late || most > 2*late {
		t.Errorf("the answer came after %v, want it soon after %v", least, late)
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
	var asked atomic.Int64
	givenUp := make(chan struct{}, 10)
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) == 1 {
			<-givenUp // as slow as that
			p.forward.ServeHTTP(w, r)
			return
		}
		<-r.Context().Done()
		givenUp <- struct{}{}
	})
	expect(t, s, path, "one")
	p.answer(nil)
	if n := asked.Load(); n < 2 || n > 3 { // a third question may be on its way as the first is answered
		t.Errorf("%d questions until the first was answered", n)
	}
}

// What becomes of a second question, over a connection that fails, is no reason to give up the first.
func TestASecondQuestionThatFailsEndsNothing(t *testing.T) {
	v := realVault(t)
	path, policyName := secretFor(t, v)
	s, p, _ := appRoleSource(t, v, policyName, nil)
	expect(t, s, path, "one")
	var asked atomic.Int64
	began := time.Now()
	p.answer(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) > 1 {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		p.forwardAfter(3*late, w, r)
	})
	expect(t, s, path, "one")
	if n, took := asked.Load(), time.Since(began); n > 1+int64(took/late) {
		t.Errorf("%d questions within %v, want one every %v", n, took, late)
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
