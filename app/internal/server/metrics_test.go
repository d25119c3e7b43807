package server_test

import (
	"context"
	"iter"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/keyturn/keyturn/app/client"
	"github.com/keyturn/keyturn/app/internal/server"
)

func TestMetricsSayHowRequestsWent(t *testing.T) {
	var err error
	c := &fake{
		generate: func(context.Context, string) (client.Answer, error) { return client.Answer{}, err },
		stream:   func(context.Context, string) iter.Seq2[client.Answer, error] { return pieces(err, "one") },
		status: client.Status{Ready: true, Generation: 7, SwappedAt: time.Unix(1_700_000_000, 500_000_000), Draining: 2,
			CurrentRefused: true, Calls: 30, Refused: 4, Rescued: 3, Waited: 2, Refreshes: 5, Acknowledged: 6},
	}
	url := host(t, c)
	post(t, url+"/v1/generate", "no JSON")
	post(t, url+"/v1/generate/somewhere", question)
	post(t, url+"/v1/generate", question)
	post(t, url+"/v1/stream", question)
	for _, failure := range failures {
		err = failure.err
		post(t, url+"/v1/generate", question)
		post(t, url+"/v1/stream", question)
	}
	metrics := get(t, url+"/metrics").body
	for _, line := range []string{
		`keyturn_app_build_info{commit="c",go="go",version="v1"} 1`,
		`keyturn_app_ready 1`,
		`keyturn_app_generation 7`,
		`keyturn_app_swap_timestamp_seconds 1.7000000005e+09`,
		`keyturn_app_draining_generations 2`,
		`keyturn_app_key_refused 1`,
		`keyturn_app_requests_running 0`,
		`keyturn_app_calls_total 30`,
		`keyturn_app_refused_total 4`,
		`keyturn_app_rescued_total 3`,
		`keyturn_app_waited_total 2`,
		`keyturn_app_refreshes_total 5`,
		`keyturn_app_acknowledged_total 6`,
		`keyturn_app_requests_total{method="generate",outcome="ok"} 1`,
		`keyturn_app_requests_total{method="stream",outcome="ok"} 1`,
		`keyturn_app_requests_total{method="generate",outcome="invalid"} 1`,
		`keyturn_app_requests_total{method="stream",outcome="invalid"} 0`,
		`keyturn_app_requests_total{method="generate",outcome="key-refused"} 3`,
		`keyturn_app_requests_total{method="stream",outcome="request-refused"} 4`,
		`keyturn_app_requests_total{method="stream",outcome="unavailable"} 7`,
		`keyturn_app_requests_total{method="generate",outcome="internal"} 1`,
	} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if n := len(regexp.MustCompile(`(?m)^keyturn_app_requests_total\{`).FindAllString(metrics, -1)); n != 2*14 {
		t.Errorf("%d series of requests: labels must not grow with what callers send", n)
	}
	complaints, err := promlint.New(strings.NewReader(metrics)).Lint()
	if err != nil || len(complaints) > 0 {
		t.Errorf("%v %v", complaints, err)
	}
}

// stuck is a client that doesn't say how it is before it is told to.
type stuck struct {
	fake
	asked, tell chan struct{}
}

func (s *stuck) Status() client.Status {
	s.asked <- struct{}{}
	<-s.tell
	return client.Status{}
}

func TestAScrapeTooManyIsAProblem(t *testing.T) {
	c := &stuck{asked: make(chan struct{}), tell: make(chan struct{})}
	url := host(t, c) + "/metrics"
	tell := sync.OnceFunc(func() { close(c.tell) })
	t.Cleanup(tell)
	scrapes := make(chan answer, 2)
	for range 2 {
		go func() { scrapes <- get(t, url) }()
		<-c.asked
	}
	if p := get(t, url).problem(t); p.Status != 503 || p.Type != server.TypePrefix+"overload" || p.RetryAfter != 1 {
		t.Errorf("%+v", p)
	}
	tell()
	for range 2 {
		if a := <-scrapes; a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

func TestARequestThatPanicsIsCountedAndEndsNothingElse(t *testing.T) {
	calls := 0
	var log page
	url, _, _ := serve(t, &fake{generate: func(context.Context, string) (client.Answer, error) {
		if calls++; calls == 1 {
			panic("a bug")
		}
		return client.Answer{}, nil
	}}, logTo(&log))
	if _, err := caller.Post(url+"/v1/generate", "application/json", strings.NewReader(question)); err == nil {
		t.Error("a request that panicked was answered")
	}
	if a := post(t, url+"/v1/generate", question); a.status != 200 {
		t.Errorf("the next request: %d %s", a.status, a.body)
	}
	metrics := get(t, url+"/metrics").body
	for _, line := range []string{`keyturn_app_requests_total{method="generate",outcome="internal"} 1`, `keyturn_app_requests_running 0`} {
		if !strings.Contains(metrics, "\n"+line+"\n") {
			t.Errorf("no %s", line)
		}
	}
	if !strings.Contains(log.String(), "a bug") {
		t.Errorf("the log doesn't tell: %q", log.String())
	}
}
