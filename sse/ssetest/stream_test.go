package ssetest_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// serve starts a server that answers with an event stream of these chunks, each
// sent by itself, and then does what end says.
func serve(t *testing.T, end func(*http.Request), chunks ...string) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		control := http.NewResponseController(w)
		for _, chunk := range append([]string{""}, chunks...) {
			io.WriteString(w, chunk)
			if err := control.Flush(); err != nil {
				return
			}
		}
		end(r)
	}))
	server.EnableHTTP2 = true
	server.StartTLS()
	t.Cleanup(server.Close)
	return server
}

func endNow(*http.Request)     {}
func stayOpen(r *http.Request) { <-r.Context().Done() }
func abort(*http.Request)      { panic(http.ErrAbortHandler) }

func TestStream(t *testing.T) {
	server := serve(t, endNow,
		"retry: 3127\nid: e.1\nevent: hub:open\ndata: {}\n\n",
		"data: one\n\n",
		": keepalive\nid: e.4\n\n",
		": keepalive\n\nid: e.5\n\nid: e.6\n\nid: e.7\nda", "ta: two\r\n\r\n",
		":bye\n\nid: e.8\n\n")
	s := ssetest.Open(t, server.Client(), server.URL, http.Header{"Last-Event-Id": {"e.0"}})

	if s.Proto != "HTTP/2.0" || s.Response.StatusCode != http.StatusOK {
		t.Errorf("got %s %s", s.Proto, s.Response.Status)
	}
	if got := s.Response.Request.Header.Get("Last-Event-ID"); got != "e.0" {
		t.Errorf("sent Last-Event-ID %q", got)
	}
	if retry, ok := s.Retry(); ok {
		t.Errorf("retry %v before any frame was asked for", retry)
	}
	if got, want := s.Expect("hub:open"), (sse.Message{ID: "e.1", Event: "hub:open", Data: "{}"}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if retry, ok := s.Retry(); !ok || retry != 3127*time.Millisecond {
		t.Errorf("got retry %v, %v", retry, ok)
	}
	if got, want := s.Next(), (sse.Message{ID: "e.1", Event: "message", Data: "one"}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := s.NextComment(); got != "keepalive" {
		t.Errorf("got comment %q", got)
	}
	if got := s.LastEventID(); got != "e.1" {
		t.Errorf("after the comment: got last event ID %q", got)
	}
	s.ExpectID("e.4")
	s.ExpectID("e.4") // is so already
	s.ExpectID("e.5")
	if got, want := s.Next(), (sse.Message{ID: "e.7", Event: "message", Data: "two"}); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for range 2 {
		if err := s.End(); err != nil {
			t.Errorf("got %v at the end", err)
		}
	}
	if got := s.LastEventID(); got != "e.8" {
		t.Errorf("at the end: got last event ID %q", got)
	}
}

func TestStreamHTTP1(t *testing.T) {
	server := httptest.NewServer(serve(t, endNow, "data: a\n\n").Config.Handler)
	defer server.Close()
	s := ssetest.Open(t, nil, server.URL, nil)
	if s.Proto != "HTTP/1.1" {
		t.Errorf("got %s", s.Proto)
	}
	s.Expect("message")
	if err := s.End(); err != nil {
		t.Errorf("got %v at the end", err)
	}
}

func TestStreamBrokenOff(t *testing.T) {
	server := serve(t, abort, "data: a\n\n", "data: b\n")
	s := ssetest.Open(t, server.Client(), server.URL, nil)
	s.Next()
	if err := s.End(); err == nil {
		t.Error("got a clean end")
	}
}

func TestStreamClose(t *testing.T) {
	left := make(chan struct{})
	server := serve(t, func(r *http.Request) { stayOpen(r); close(left) }, "data: a\n\n")
	s := ssetest.Open(t, server.Client(), server.URL, nil)
	s.Next()
	s.Close()
	s.Close()
	<-left
	if err := s.End(); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v after Close", err)
	}
}

// TestStreamIsBounded has a server that writes for as long as it is let, and a
// test that asks for nothing: the server must be held up.
func TestStreamIsBounded(t *testing.T) {
	written, heldUp := 0, make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(heldUp)
		w.Header().Set("Content-Type", "text/event-stream")
		chunk := "data: " + strings.Repeat("x", 64<<10) + "\n\n"
		control := http.NewResponseController(w)
		for ; written < 10_000; written++ {
			if err := control.SetWriteDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
				return
			}
			if _, err := io.WriteString(w, chunk); err != nil {
				return
			}
		}
	}))
	defer server.Close()
	s := ssetest.Open(t, nil, server.URL, nil)
	<-heldUp
	if written == 10_000 {
		t.Errorf("the server could write %d events that nobody asked for", written)
	}
	s.Next()
	s.Close()
}

// fatalTB is a test that notes how it failed.
type fatalTB struct {
	testing.TB
	failure string
}

func (t *fatalTB) Fatalf(format string, args ...any) {
	t.failure = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// failureOf returns how f failed the test that it was given, or nothing.
func failureOf(t *testing.T, f func(testing.TB)) string {
	tb := &fatalTB{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		f(tb)
	}()
	<-done
	return tb.failure
}

func TestStreamFails(t *testing.T) {
	const script = ": hello\n\nid: 1\n\nid: 2\nevent: price\ndata: 101.5\n\n"
	for _, tc := range []struct {
		name string
		end  func(*http.Request)
		use  func(*ssetest.Stream)
		want []string
	}{
		{"Expect another name", endNow, func(s *ssetest.Stream) { s.Expect("cost") }, []string{`message "price"`, `where a message "cost"`}},
		{"Next past the end", endNow, func(s *ssetest.Stream) { s.Next(); s.Next() }, []string{"ended (error: <nil>)", "frames so far: 3", `comment "hello"`, `id "1"`, `101.5`}},
		{"Next on a silent stream", stayOpen, func(s *ssetest.Stream) { s.Next(); s.Timeout = time.Millisecond; s.Next() }, []string{"waited 1ms for a message", `101.5`}},
		{"NextComment loses no message", stayOpen, func(s *ssetest.Stream) { s.NextComment(); s.NextComment() }, []string{`got message "price"`, "a comment was awaited"}},
		{"ExpectID loses no message", stayOpen, func(s *ssetest.Stream) { s.ExpectID("2") }, []string{`got message "price"`, `id "2"`}},
		{"End loses no message", endNow, func(s *ssetest.Stream) { s.End() }, []string{`got message "price"`, "end of the stream"}},
		{"End on a silent stream", stayOpen, func(s *ssetest.Stream) { s.Next(); s.Timeout = time.Millisecond; s.End() }, []string{"waited 1ms for the end"}},
		{"after Close", stayOpen, func(s *ssetest.Stream) { s.Close(); s.Next() }, []string{"context canceled"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := serve(t, tc.end, script)
			failure := failureOf(t, func(tb testing.TB) { tc.use(ssetest.Open(tb, server.Client(), server.URL, nil)) })
			for _, want := range tc.want {
				if !strings.Contains(failure, want) {
					t.Errorf("failure %q does not say %q", failure, want)
				}
			}
		})
	}
}

func TestOpenFails(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/forbidden":
			http.Error(w, "no such channel for you", http.StatusForbidden)
		case "/json":
			w.Header().Set("Content-Type", "application/json")
			io.WriteString(w, "{}")
		case "/accept":
			http.Error(w, "accept="+r.Header.Get("Accept"), http.StatusNotAcceptable)
		}
	}))
	defer server.Close()
	for _, tc := range []struct{ name, url, want string }{
		{"status", server.URL + "/forbidden", "403 Forbidden with Content-Type \"text/plain; charset=utf-8\", want 200 with text/event-stream; body: no such channel for you"},
		{"type", server.URL + "/json", "application/json"},
		{"Accept is sent", server.URL + "/accept", "accept=text/event-stream"},
		{"no server", "http://127.0.0.1:0", "GET http://127.0.0.1:0"},
		{"no URL", "://", "missing protocol scheme"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			failure := failureOf(t, func(tb testing.TB) { ssetest.Open(tb, nil, tc.url, nil) })
			if !strings.Contains(failure, tc.want) {
				t.Errorf("failure %q does not say %q", failure, tc.want)
			}
		})
	}
}
