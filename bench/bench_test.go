//go:build linux

package main

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
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

// Everything runs to its end, and every event is delivered once, in order; how
// fast is no matter, so neither is what is missed.
func TestRun(t *testing.T) {
	k, err := makeKit(t.Context(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		command string
		rows    map[string]int // that begin so, in the report
	}{
		{"plain -streams 20 -events 20 -rounds 1", map[string]int{"| loop |": 4, "| caddy |": 4, "| naive |": 4, "| HTTP/1.1: ": 4}},
		{"tls -streams 20 -events 20 -rounds 1", map[string]int{"| caddy |": 3, "| naive |": 3, "| HTTP/1.1 over TLS: ": 3}},
		{"h2 -streams 20 -events 20 -rounds 1", map[string]int{"| caddy |": 3, "| naive |": 3, "| HTTP/2 over TLS: ": 2}},
		{"peers -streams 20 -events 20 -rounds 1", peerRows()},
		{"burst -streams 20 -events 5 -rounds 1", map[string]int{"| loop |": 1, "| caddy |": 1, "| p99 of one event": 1}},
		{"slow -streams 20 -megabytes 1 -size 65536 -every 5ms -rounds 2", map[string]int{"| without it": 1, "| with it": 1, "| bytes that memory": 1}},
		{"reload -streams 20 -reloads 2 -rounds 1", map[string]int{"| 0 | 0 |": 1, "| events lost by reloads | 0 | 0 ": 1}},
		{"storm -streams 40 -channels 7 -events 10 -rounds 1", map[string]int{"| memory |": 14, "| bolt |": 18}},
		{"redis -streams 20 -events 20 -rate 200 -lasting 300ms -rounds 1", redisRows()},
		{"record -events 4000 -keep 500 -rounds 1 -sharing 100ms", map[string]int{"| ": 1 + rows + 1 + 2, "| last row": 1}},
		{"-scale 0.004 -rounds 1", map[string]int{"## HTTP/1.1: 20": 1, "## HTTP/2 over TLS: 8": 1, "## Storm: 20": 1, "| streams dropped by reloads": 1}},
	} {
		t.Run(test.command, func(t *testing.T) {
			j, err := readArguments(strings.Fields(test.command))
			if err != nil {
				t.Fatal(err)
			}
			j.out = filepath.Join(t.TempDir(), "results", "test.md")
			if err := j.run(t.Context(), k); err != nil && !errors.Is(err, errMissed) {
				t.Fatal(err)
			}
			text, err := os.ReadFile(j.out)
			if err != nil {
				t.Fatal(err)
			}
			for start, want := range test.rows {
				if got := strings.Count("\n"+string(text), "\n"+start); got != want+strings.Count(string(text), "\n"+start+"---") {
					t.Errorf("%d rows of the report begin with %q, want %d:\n%s", got, start, want, text)
				}
			}
		})
	}
}

// peerRows are those of the peers that are there.
func peerRows() map[string]int {
	rows := make(map[string]int)
	for _, name := range peersFanout.engines {
		rows["| "+name+" |"] = 3
		if engines[name].missing() != "" {
			rows["| "+name+" |"], rows[name+" is left out: "] = 0, 1
		}
	}
	return rows
}

// redisRows are there if Redis is.
func redisRows() map[string]int {
	if redisEngine.missing() != "" {
		return map[string]int{"redis is left out: ": 1}
	}
	return map[string]int{"| memory, one node": 2, "| redis, other node": 2, "| 10, ": 2, "| cores of a node": 1, "| 30 | ": 2}
}

// What is not understood is an error, before anything is built.
func TestArguments(t *testing.T) {
	for _, test := range []struct {
		arguments string
		want      string // empty for none
	}{
		{"", ""},
		{"-scale 0.1", ""},
		{"-scale 0", "scale must be positive"},
		{"-scale 10 -rounds 1", "need 150100 files"},
		{"plain -streams 10", ""},
		{"storm -channels 1", ""},
		{"redis -streams 10 -append always", ""},
		{"redis -append sometimes", "append must be no, everysec or always"},
		{"redis -lasting 0s", "lasting must be positive"},
		{"redis -streams 1000000", "need 3000100 files"},
		{"record -events 100 -dir /tmp", ""},
		{"strom", `"strom" is not understood`},
		{"-rounds 1 storm", `"storm" is not understood`},
		{"storm -keep 10", "flag provided but not defined: -keep"},
		{"storm -streams 10 -channels 11", "more channels than streams"},
		{"storm -events 1001", "events must be at most 1000"},
		{"storm -channels 5000 -size 200", "more than a request may hold"},
		{"storm -streams 100000000", "need 200000100 files"},
		{"record -events 39", "events must be at least 40"},
		{"record -sharing 0s", "sharing must be positive"},
		{"h2 -size 10", "size must be at least 33"},
	} {
		_, err := readArguments(strings.Fields(test.arguments))
		if (err == nil) != (test.want == "") || (err != nil && !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%q: got %v, want %q", test.arguments, err, test.want)
		}
	}
}

// A stream remembers the last id as a browser does, what the hub said of that
// which was presented, and notices events that come late or again.
func TestStreamNote(t *testing.T) {
	var s stream
	for _, step := range []struct {
		frame   string
		inOrder bool
		last    string
	}{
		{"retry: 3000\nid: e.7\nevent: hub:open\ndata: {\"connection\":\"c\",\"resume\":\"complete\"}", true, "e.7"},
		{"id: e.8\ndata: one", true, "e.8"},
		{"id: e.10\nevent: x\ndata: two\ndata: id: e.1", true, "e.10"},
		{": keepalive\nid: e.12", true, "e.12"},
		{": keepalive", true, "e.12"},
		{"id: e.12\ndata: late", false, "e.12"},
		{"id: e.11\ndata: later", false, "e.11"},
	} {
		if got := s.note([]byte(step.frame)); got != step.inOrder || string(s.last) != step.last {
			t.Errorf("%q: got %t and the id %q, want %t and %q", step.frame, got, s.last, step.inOrder, step.last)
		}
	}
	if s.resume != "complete" || s.broken != nil {
		t.Errorf("got the resume %q and the error %v, want complete and none", s.resume, s.broken)
	}
	s.note([]byte("id: e.20\nevent: hub:reset\ndata: {}"))
	if s.broken == nil {
		t.Error("a reset is no error")
	}
}

// A tally takes the events of each publisher once, in their order.
func TestTallyTake(t *testing.T) {
	y := newTally(2)
	first, second := y.series(0), y.series(1)
	done := y.reached(3)
	for _, step := range []struct {
		name  string
		event stamp
		want  bool
	}{
		{"first", stamp{series: first}, true},
		{"again", stamp{series: first}, false},
		{"of the other", stamp{series: second}, true},
		{"one is missing", stamp{series: first, number: 2}, false},
		{"nobody's", stamp{series: second + 1}, false},
		{"nobody's before", stamp{series: first - 1}, false},
		{"next", stamp{series: first, number: 1}, true},
	} {
		if got := y.take(0, step.event, 0); got != step.want {
			t.Errorf("%s: got %t, want %t", step.name, got, step.want)
		}
	}
	select {
	case <-done:
	default:
		t.Errorf("%d events were received, which is not 3", y.count())
	}
}

// A roster takes of each channel's events each once, in order, and knows how many they are.
func TestRosterTake(t *testing.T) {
	f := flow{channels: 6}
	r := &roster{half: 2 * time.Second}
	for channel := range 6 {
		r.places = append(r.places, f.place(channel, 2, 10))
	}
	if got := r.places[3]; got != (place{series: 11, next: 1, step: 3}) {
		t.Errorf("channel 3 has the place %+v", got)
	}
	for events, want := range []int{0, 0, 1, 1, 1, 2} {
		if got := r.places[3].due(events); got != want {
			t.Errorf("%d events of channel 3 are due after %d of its publisher, want %d", got, events, want)
		}
	}
	for _, step := range []struct {
		name  string
		event stamp
		want  bool
	}{
		{"of another channel", stamp{series: 11}, false},
		{"of another publisher", stamp{series: 10, number: 1}, false},
		{"first", stamp{series: 11, number: 1, at: time.Second}, true},
		{"again", stamp{series: 11, number: 1, at: time.Second}, false},
		{"one is missing", stamp{series: 11, number: 7}, false},
		{"second", stamp{series: 11, number: 4, at: 2 * time.Second}, true},
	} {
		if got := r.take(3, step.event, 5*time.Second); got != step.want {
			t.Errorf("%s: got %t, want %t", step.name, got, step.want)
		}
	}
	if r.count() != 2 || r.worst != [2]time.Duration{4 * time.Second, 3 * time.Second} {
		t.Errorf("got %d events, the worst after %v", r.count(), r.worst)
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
	if s.take(0, stamp{series: s.id, number: 1}, 2*time.Second); s.finished[0] != 2*time.Second || s.finished[1] != 0 {
		t.Errorf("the receivers finished at %v, want only the first, at 2s", s.finished)
	}
}

// A check holds if the median of its rounds does, and a number that is none
// never does.
func TestMissed(t *testing.T) {
	for _, test := range []struct {
		values []float64
		want   string // empty for none
	}{
		{[]float64{1, 1.3, 9}, ""},
		{[]float64{1, 1.31, 1.4}, "missed: x is 1.31, and must be at most 1.30"},
		{[]float64{math.NaN()}, "missed: x is NaN"},
	} {
		err := missed([]check{{"x", 1.3, test.values}})
		if (err == nil) != (test.want == "") || (err != nil && !strings.HasPrefix(err.Error(), test.want)) {
			t.Errorf("%v: got %v, want %q", test.values, err, test.want)
		}
	}
}

// A plot is XML, whatever the panels are called, with a bar for each number.
func TestPlot(t *testing.T) {
	svg := drawPlot([]panel{{"a < b", []bar{{"loop", 0}, {"caddy", 2}}}, {"c", []bar{{"naive", 1}}}})
	bars := 0
	for d := xml.NewDecoder(strings.NewReader(svg)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if start, ok := token.(xml.StartElement); ok && start.Name.Local == "rect" {
			bars++
		}
	}
	if bars != 1+3 {
		t.Errorf("%d rectangles, want one behind the plot and 3 bars", bars)
	}
}
