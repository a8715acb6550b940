//go:build linux

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestMain lets the test program be the servers to compare with, too.
func TestMain(m *testing.M) {
	if !serveChild(os.Args[1:]) {
		os.Exit(m.Run())
	}
}

// Everything runs to its end, and every event is delivered once; how fast is
// no matter.
func TestRun(t *testing.T) {
	set := settings{streams: 20, events: 50, rounds: 1, size: 150, out: filepath.Join(t.TempDir(), "results", "test.md")}
	if err := run(t.Context(), set); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(set.out)
	if err != nil {
		t.Fatal(err)
	}
	for _, engine := range engines {
		if got := strings.Count(string(text), "| "+engine+" |"); got != 4 {
			t.Errorf("%s is in %d tables of the report, want 4", engine, got)
		}
	}
}

// However the bytes of an answer are cut, its frames come out whole.
func TestStreamPieces(t *testing.T) {
	const head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
	answers := map[string]string{
		"chunked":        head + "Transfer-Encoding: chunked\r\n\r\n10\r\nid: 1\ndata: one\n\r\n1\r\n\n\r\nc\r\n: k\n\ndata: 2\r\n2\r\n\n\n\r\n",
		"ended by close": head + "Connection: close\r\n\r\nid: 1\ndata: one\n\n: k\n\ndata: 2\n\n",
	}
	const want = "id: 1\ndata: one|: k|data: 2|"
	for name, answer := range answers {
		for first := range len(answer) {
			for second := first; second < len(answer); second++ {
				var s stream
				var got string
				for _, piece := range []string{answer[:first], answer[first:second], answer[second:]} {
					err := s.feed([]byte(piece), func(frame []byte) { got += string(frame) + "|" })
					if err != nil {
						t.Fatalf("%s, cut at %d and %d: %v", name, first, second, err)
					}
				}
				if got != want {
					t.Fatalf("%s, cut at %d and %d: got %q, want %q", name, first, second, got, want)
				}
			}
		}
	}
}

// A series takes each of its events once from each of its receivers.
func TestSeriesTake(t *testing.T) {
	s := newSeries(2, 2, 1)
	other := newSeries(2, 2, 1)
	for _, step := range []struct {
		name     string
		receiver int
		event    stamp
		want     bool
	}{
		{"first", 0, stamp{series: s.id}, true},
		{"again", 0, stamp{series: s.id}, false},
		{"other receiver", 1, stamp{series: s.id}, true},
		{"no receiver", 2, stamp{series: s.id}, false},
		{"other series", 0, stamp{series: other.id, number: 1}, false},
		{"never published", 0, stamp{series: s.id, number: 2}, false},
	} {
		if got := s.take(step.receiver, step.event, time.Second); got != step.want {
			t.Errorf("%s: got %t, want %t", step.name, got, step.want)
		}
	}
	if s.left != 1 {
		t.Errorf("%d events are left, want 1", s.left)
	}
}
