package geminitest

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

const body = `{"contents":[{"role":"user","parts":[{"text":"Why is the sky "},{"text":"blue?"}]}]}`

const asked = "Why is the sky blue?"

// ask sends one request to the handler and returns the answer. path is what follows /v1beta/.
func ask(s *Server, method, path, key string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "/v1beta/"+path, strings.NewReader(body))
	if key != "" {
		r.Header.Set("x-goog-api-key", key)
	}
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, r)
	return w
}

func generate(s *Server, key string) int {
	return ask(s, "POST", "models/gemini-3.8-flash:generateContent", key).Code
}

func decode(t *testing.T, raw string, v any) {
	t.Helper()
	if err := json.Unmarshal([]byte(raw), v); err != nil {
		t.Fatalf("%v in %q", err, raw)
	}
}

type response struct {
	Candidates []struct {
		Content      struct{ Parts []struct{ Text string } }
		FinishReason any
	}
	Error *apiError
}

func TestTheFourCallsAnswerInTheirFormats(t *testing.T) {
	s := New()
	s.Add("good")
	const model = "models/gemini-3.8-flash"

	var one response
	decode(t, ask(s, "POST", model+":generateContent", "good").Body.String(), &one)
	if c := one.Candidates[0]; c.Content.Parts[0].Text != Answer(asked) || c.FinishReason != "STOP" {
		t.Errorf("generateContent: %+v", one)
	}
	decode(t, ask(s, "POST", model+":generateContent?%24alt=json%3Benum-encoding%3Dint", "good").Body.String(), &one)
	if reason := one.Candidates[0].FinishReason; reason != 1.0 {
		t.Errorf("enums as numbers: %v", reason)
	}
	if w := ask(s, "POST", model+":countTokens", "good"); w.Code != 200 || !strings.Contains(w.Body.String(), `"totalTokens":6`) {
		t.Errorf("countTokens: %d %s", w.Code, w.Body)
	}
	if w := ask(s, "GET", "models?pageSize=1", "good"); w.Code != 200 || !strings.Contains(w.Body.String(), `"models":[{`) {
		t.Errorf("models: %d %s", w.Code, w.Body)
	}
	if w := ask(s, "GET", "models/gemini-9", "good"); w.Code != 200 || !strings.Contains(w.Body.String(), `"name":"models/gemini-9"`) {
		t.Errorf("one model: %d %s", w.Code, w.Body)
	}
	for _, strange := range []string{"models/gemini-3.8-flash:embedContent", "files", "models/x"} {
		if w := ask(s, "POST", strange, "good"); w.Code != 404 {
			t.Errorf("POST %s: %d", strange, w.Code)
		}
	}
}

func TestAStreamIsAnArrayOrEvents(t *testing.T) {
	s := New()
	s.Add("good")
	w := ask(s, "POST", "models/m:streamGenerateContent", "good")
	var array []response
	decode(t, w.Body.String(), &array)
	var events []response
	sse := ask(s, "POST", "models/m:streamGenerateContent?alt=sse", "good")
	for event := range strings.SplitSeq(strings.TrimSuffix(sse.Body.String(), "\r\n\r\n"), "\r\n\r\n") {
		data, ok := strings.CutPrefix(event, "data: ")
		if !ok {
			t.Fatalf("event %q", event)
		}
		var r response
		decode(t, data, &r)
		events = append(events, r)
	}
	if got := sse.Header().Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type of events: %s", got)
	}
	for form, pieces := range map[string][]response{"array": array, "events": events} {
		text := ""
		for i, p := range pieces {
			text += p.Candidates[0].Content.Parts[0].Text
			if last := i == len(pieces)-1; (p.Candidates[0].FinishReason != nil) != last {
				t.Errorf("%s: piece %d has finishReason %v", form, i, p.Candidates[0].FinishReason)
			}
		}
		if len(pieces) != 3 || text != Answer(asked) {
			t.Errorf("%s: %d pieces: %q", form, len(pieces), text)
		}
	}
}

func TestCredentialsAreLookedAtFirst(t *testing.T) {
	s := New()
	s.Add("good")
	tests := []struct {
		name, url string
		header    http.Header
		want      Case
	}{
		{"none", "/v1beta/nowhere", nil, NoKey},
		{"unknown", "/v1beta/nowhere", http.Header{"X-Goog-Api-Key": {"bad"}}, Invalid},
		{"in the URL", "/v1beta/models?key=good", nil, KeyInURL},
		{"in both", "/v1beta/models?key=good", http.Header{"X-Goog-Api-Key": {"good"}}, TwoCredentials},
		{"twice", "/v1beta/models", http.Header{"X-Goog-Api-Key": {"good", "good"}}, TwoCredentials},
		{"with a token", "/v1beta/models", http.Header{"X-Goog-Api-Key": {"good"}, "Authorization": {"Bearer t"}}, TwoCredentials},
		{"a token only", "/v1beta/models", http.Header{"Authorization": {"Bearer good"}}, TokenType},
	}
	for _, test := range tests {
		r := httptest.NewRequest("GET", test.url, nil)
		r.Header = test.header
		if r.Header == nil {
			r.Header = http.Header{}
		}
		w := httptest.NewRecorder()
		s.Handler().ServeHTTP(w, r)
		status, want := test.want.Response("")
		if w.Code != status || w.Body.String() != string(want) {
			t.Errorf("%s: %d %s, want %q", test.name, w.Code, w.Body, test.want)
		}
	}
	if got := s.KeysInURLs(); got != 2 {
		t.Errorf("%d keys counted in URLs, want 2", got)
	}
}

func TestTheLifeOfAKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		expect := func(what string, want int) {
			t.Helper()
			if got := generate(s, "k"); got != want {
				t.Errorf("%s: %d, want %d", what, got, want)
			}
		}
		expect("never added", 400)
		s.Add("k")
		expect("added", 200)
		s.Revoke("k")
		expect("revoked", 400)
		s.Delay("k", 5*time.Second)
		expect("delayed", 400)
		<-time.After(5*time.Second - 1)
		expect("delayed, just before its time", 400)
		<-time.After(1)
		expect("delayed, at its time", 200)
		s.Flap("k", 3, 5*time.Second)
		for i := 1; i <= 6; i++ {
			expect(fmt.Sprintf("flapping, request %d", i), map[bool]int{true: 400, false: 200}[i%3 == 0])
		}
		<-time.After(5 * time.Second)
		for range 6 {
			expect("flapped enough", 200)
		}
		s.Suspend("k")
		expect("suspended", 403)
		if w := ask(s, "POST", "models/m:generateContent", "k"); strings.Count(w.Body.String(), "api_key:k") != 2 {
			t.Errorf("a suspended key is quoted twice: %s", w.Body)
		}
		s.Leak("k")
		expect("leaked", 403)
		s.DenyProject("k")
		expect("denied", 403)
		s.DisableService("k")
		expect("API off", 403)
		s.RateLimit("k", 1500*time.Millisecond, 2)
		if w := ask(s, "POST", "models/m:generateContent", "k"); w.Code != 429 || w.Header().Get("Retry-After") != "2" {
			t.Errorf("rate limited: %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
		}
		expect("rate limited again", 429)
		expect("no longer rate limited", 200)
		if n := s.Add("k"); n != 1 {
			t.Errorf("its ordinal became %d", n)
		}
		if n := s.Add("another"); n != 2 {
			t.Errorf("the second key has ordinal %d", n)
		}
	})
}

func TestAStreamOutlivesItsKey(t *testing.T) {
	s := NewServer()
	defer s.Close()
	s.Add("old")
	s.SetStream(Stream{Pieces: 2, Interval: 50 * time.Millisecond})
	r, err := http.NewRequest("POST", s.URL+"/v1beta/models/m:streamGenerateContent?alt=sse", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("x-goog-api-key", "old")
	w, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Body.Close()
	defer http.DefaultClient.CloseIdleConnections()
	reader := bufio.NewReader(w.Body)
	if _, err := reader.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	s.Revoke("old") // while the second piece is still to come
	rest, err := io.ReadAll(reader)
	if err != nil || !strings.Contains(string(rest), "finishReason") {
		t.Errorf("the stream broke off: %q, %v", rest, err)
	}
	if got := generate(s, "old"); got != 400 {
		t.Errorf("the next request: %d, want 400", got)
	}
}

func TestInjectedFailuresComeFirstAndInOrder(t *testing.T) {
	s := New()
	s.Fail(2, 502, http.Header{"Content-Type": {"text/html"}}, "<html>")
	s.FailCase(1, Overloaded)
	for i, want := range []int{502, 502, 503, 403} {
		if w := ask(s, "GET", "models", ""); w.Code != want {
			t.Errorf("request %d: %d, want %d", i+1, w.Code, want)
		}
	}
}

func TestTheRecordSaysWhichKeyServedWhat(t *testing.T) {
	s := New()
	s.Add("first")
	s.Add("second")
	generate(s, "first")
	s.Revoke("first")
	generate(s, "first")
	generate(s, "second")
	s.SetStream(Stream{Pieces: 2, End: EndUnfinished})
	ask(s, "POST", "models/m:streamGenerateContent", "second")
	requests := s.Requests()
	var got []string
	for _, r := range requests {
		got = append(got, fmt.Sprint(r.Key, " ", r.Method, " ", r.Status, " ", r.Complete, " ", r.Refused))
	}
	want := []string{"1 generateContent 200 true ", "1 generateContent 400 false invalid", "2 generateContent 200 true ",
		"2 streamGenerateContent 200 false "}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if s.Served(1) != 1 || s.Served(2) != 1 || s.Running() != 0 || requests[0].Prompt != asked {
		t.Errorf("served %d and %d, running %d, prompt %q", s.Served(1), s.Served(2), s.Running(), requests[0].Prompt)
	}
	if text := fmt.Sprintf("%+v %+v", requests, s.Counts()); strings.Contains(text, "first") || strings.Contains(text, "second") {
		t.Errorf("the record names a key: %s", text)
	}
}

func TestTheRecordIsBoundedAndTheCountsAreNot(t *testing.T) {
	var r record
	r.counts = make(map[Count]int)
	for i := range maxRequests + 10 {
		r.add(Request{Key: 1, Status: i})
	}
	s := &Server{record: r}
	kept := s.Requests()
	if len(kept) != maxRequests || kept[0].Status != 10 || kept[len(kept)-1].Status != maxRequests+9 {
		t.Errorf("kept %d, from %d to %d", len(kept), kept[0].Status, kept[len(kept)-1].Status)
	}
	if len(s.Counts()) != maxRequests+10 {
		t.Errorf("%d counts", len(s.Counts()))
	}
}

func TestEveryCaseHasABodyOfItsOwn(t *testing.T) {
	seen := map[string]Case{}
	for _, c := range Cases() {
		status, body := c.Response("k")
		var r response
		decode(t, string(body), &r)
		if r.Error == nil || r.Error.Code != status || r.Error.Message == "" || r.Error.Status == "" {
			t.Errorf("%s: %d %s", c, status, body)
		}
		if other, ok := seen[string(body)]; ok {
			t.Errorf("%s and %s have the same body", c, other)
		}
		seen[string(body)] = c
	}
}

func TestKeysMayChangeWhileRequestsRun(t *testing.T) {
	s := New()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			key := fmt.Sprint("key-", i)
			for range 200 {
				s.Add(key)
				generate(s, key)
				s.Revoke(key)
				s.SetLatency(0)
				s.Requests()
			}
		})
	}
	wg.Wait()
	total := 0
	for _, n := range s.Counts() {
		total += n
	}
	if total != 800 || s.Running() != 0 {
		t.Errorf("%d requests counted, want 800; %d running", total, s.Running())
	}
}

func BenchmarkGenerate(b *testing.B) {
	s := New()
	s.Add("k")
	for b.Loop() {
		generate(s, "k")
	}
}
