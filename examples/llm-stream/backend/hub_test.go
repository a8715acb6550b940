package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A fakeHub keeps what it is sent, once for each id, and treats it as told
// first.
type fakeHub struct {
	mu       sync.Mutex
	faults   []fault // of the next requests
	requests []string
	seen     map[string]bool
	text     string
}

// A fault is what happens to a request, which may be taken all the same.
type fault func(w http.ResponseWriter, take func())

func (h *fakeHub) RoundTrip(r *http.Request) (*http.Response, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.requests = append(h.requests, r.Method+" "+r.URL.RequestURI())
	body, _ := io.ReadAll(r.Body)
	take := func() {
		if id := r.URL.Query().Get("id"); !h.seen[id] {
			h.seen[id] = true
			h.text += string(body)
		}
	}
	w := httptest.NewRecorder()
	if len(h.faults) == 0 {
		take()
		return w.Result(), nil
	}
	fault := h.faults[0]
	h.faults = h.faults[1:]
	if fault == nil {
		return nil, errors.New("connection refused")
	}
	fault(w, take)
	return w.Result(), nil
}

func newFakeHub(faults ...fault) (*fakeHub, *hub) {
	fake := &fakeHub{faults: faults, seen: make(map[string]bool)}
	return fake, &hub{&http.Client{Transport: fake}, "http://hub.example.com/sse"}
}

func status(code int, body string) fault {
	return func(w http.ResponseWriter, _ func()) {
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body)
	}
}

// unanswered takes the event and fails all the same, as a proxy does that lost
// the hub meanwhile.
func unanswered(w http.ResponseWriter, take func()) {
	take()
	w.WriteHeader(http.StatusBadGateway)
}

// An event is sent with the same id until the hub has answered 200, and arrives
// once.
func TestPublishInsists(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, h := newFakeHub(nil, status(503, ""), unanswered, unanswered, status(429, ""))
		if err := h.publish(t.Context(), "answer-A", event{id: "1", data: "Hé "}); err != nil {
			t.Fatal(err)
		}
		if err := h.publish(t.Context(), "answer-A", event{id: "2", name: "done", data: "1", last: true}); err != nil {
			t.Fatal(err)
		}
		want := slices.Repeat([]string{"POST /sse/publish/answer-A?id=1"}, 6)
		want = append(want, "POST /sse/publish/answer-A?end=true&event=done&id=2")
		if !slices.Equal(fake.requests, want) {
			t.Errorf("sent %q, want %q", fake.requests, want)
		}
		if fake.text != "Hé 1" {
			t.Errorf("the hub has %q", fake.text)
		}
	})
}

// What can never succeed is not tried again.
func TestPublishRefused(t *testing.T) {
	fake, h := newFakeHub(status(409, `{"detail":"channel \"a\" has ended"}`))
	err := h.publish(t.Context(), "a", event{id: "1"})
	if err == nil || err.Error() != `status 409 Conflict: channel "a" has ended` {
		t.Errorf("got %v", err)
	}
	if len(fake.requests) != 1 {
		t.Errorf("sent %q", fake.requests)
	}
}

// Attempts end before the hub forgets the id, and at once when nobody wants the
// answer any more.
func TestPublishGivesUp(t *testing.T) {
	down := slices.Repeat([]fault{nil}, 10_000)
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		_, h := newFakeHub(down...)
		if err := h.publish(t.Context(), "a", event{id: "1"}); err == nil {
			t.Error("no error")
		}
		if after := time.Since(start); after < time.Minute || after >= 5*time.Minute {
			t.Errorf("gave up after %s", after)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, h := newFakeHub(down...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.publish(ctx, "a", event{id: "1"}); err == nil {
			t.Error("no error")
		}
		if ctx.Err() == nil {
			t.Error("gave up early")
		}
	})
}

// The words of an answer make its text, each published once, between the
// question and the event that ends the channel.
func TestWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, h := newFakeHub(nil, unanswered, nil)
		a := newAnswers(t.Context(), h, 60*time.Millisecond)
		if err := a.write(t.Context(), "answer-A", "100 % sûr?"); err != nil {
			t.Fatal(err)
		}
		whole := answer("100 % sûr?")
		words := len(strings.Fields(whole))
		if want := "100 % sûr?" + whole + strconv.Itoa(words); fake.text != want {
			t.Errorf("the hub has\n%s\nwant\n%s", fake.text, want)
		}
		if last := fake.requests[len(fake.requests)-1]; !strings.Contains(last, "end=true") || len(fake.seen) != words+2 {
			t.Errorf("%d events, the last %s", len(fake.seen), last)
		}
	})
}

// A stopped answer ends its channel without another event, and cannot be
// stopped again. Neither can what is no answer.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, h := newFakeHub()
		a := newAnswers(t.Context(), h, time.Second)
		asked := post(a, "/ask", url.Values{"question": {"why?"}})
		id := strings.TrimSuffix(strings.TrimPrefix(asked.Body.String(), `{"answer":"`), "\"}\n")
		if asked.Code != 200 || len(id) < 22 {
			t.Fatalf("POST /ask: %d %s", asked.Code, asked.Body)
		}
		time.Sleep(5 * time.Second)
		if got := post(a, "/stop", url.Values{"answer": {"another"}}).Code; got != 404 {
			t.Errorf("another answer: %d", got)
		}
		if got := post(a, "/stop", url.Values{"answer": {id}}).Code; got != 204 {
			t.Errorf("POST /stop: %d", got)
		}
		a.wait()
		if got := post(a, "/stop", url.Values{"answer": {id}}).Code; got != 404 {
			t.Errorf("POST /stop again: %d", got)
		}
		if last := fake.requests[len(fake.requests)-1]; last != "DELETE /sse/channels/answer-"+id || len(fake.requests) > 15 {
			t.Errorf("sent %q", fake.requests)
		}
	})
}

// When the program is told to stop, the channels of its answers end.
func TestShutdown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fake, h := newFakeHub()
		ctx, cancel := context.WithCancel(t.Context())
		a := newAnswers(ctx, h, time.Second)
		for range 3 {
			post(a, "/ask", url.Values{"question": {"why?"}})
		}
		time.Sleep(3 * time.Second)
		cancel()
		a.wait()
		ended := slices.DeleteFunc(fake.requests, func(r string) bool { return !strings.HasPrefix(r, "DELETE ") })
		if len(ended) != 3 {
			t.Errorf("ended %q", ended)
		}
	})
}

// A question is one line of a bounded length.
func TestAskRefuses(t *testing.T) {
	for name, question := range map[string]string{"empty": " \r\n ", "long": strings.Repeat("ä", maxQuestion+1), "huge": strings.Repeat("a", 1<<20)} {
		t.Run(name, func(t *testing.T) {
			_, h := newFakeHub()
			if got := post(newAnswers(t.Context(), h, time.Second), "/ask", url.Values{"question": {question}}); got.Code != 400 {
				t.Errorf("got %d %s", got.Code, got.Body)
			}
		})
	}
}

func post(a *answers, path string, form url.Values) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, strings.NewReader(form.Encode()))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	w := httptest.NewRecorder()
	a.handler().ServeHTTP(w, r)
	return w
}
