package caddymodule_test

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// stalled opens a stream that reads next to nothing while events are published on
// its channel: far more than the buffers of a connection hold.
func stalled(l *lab) (s *ssetest.Stream, events int) {
	l.t.Helper()
	s, _ = l.open("?channel=a")
	events = 400
	padding := strings.Repeat("x", 64<<10)
	for i := range events {
		l.publish("a", strconv.Itoa(i+1)+" "+padding)
	}
	return s, events
}

// TestSlowReset promises that a client which stops reading, and reads again when it
// is further behind than it may be, is told what it lost, and gets what comes then.
func TestSlowReset(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t\tlimits {\n\t\t\tlag 1MiB\n\t\t}\n\t}")
	s, events := stalled(l)
	head := l.numbers("").Position
	resets := 0
	for seq := uint64(0); seq < head.Seq; {
		m := s.Next()
		at, err := sse.ParsePosition(m.ID)
		switch number, _, _ := strings.Cut(m.Data, " "); {
		case err != nil:
			t.Fatal(err)
		case m.Event == "hub:reset":
			var told openData
			decodeStrictly(t, m.Data, &told)
			if got := fmt.Sprint(told.Resume, told.Reset); got != "reset[{a limit}]" || at.Seq <= seq {
				t.Errorf("behind %d, got hub:reset %s with the id %s", seq, got, at)
			}
			resets++
		case number != strconv.Itoa(int(seq)+1):
			t.Fatalf("got the event %s after %d", number, seq)
		}
		seq = at.Seq
	}
	if got := l.numbers("").Resets["limit"]; resets == 0 || got != resets {
		t.Errorf("of %d events, %d resets came, %d were counted", events, resets, got)
	}
	l.publish("a", "later")
	expectData(t, s, "later")
}

// TestSlowDisconnect promises that such a client is sent away instead, if the route
// says so, and gets all that it missed when it comes back.
func TestSlowDisconnect(t *testing.T) {
	l := loadLab(t, "", "sse /events* {\n\t\tallow *\n\t\tlimits {\n\t\t\tlag 1MiB\n\t\t}\n\t\tslow disconnect\n\t}")
	s, events := stalled(l)
	m, last, read := s.Next(), "", 0
	for ; m.Event == "message"; m = s.Next() {
		read++
		if number, _, _ := strings.Cut(m.Data, " "); number != strconv.Itoa(read) {
			t.Fatalf("got the event %s as the %d. one", number, read)
		}
		last = m.ID
	}
	if m.Event != "hub:close" || m.Data != `{"reason":"slow"}` || read == 0 || read == events {
		t.Fatalf("got %s %.100q after %d of %d events", m.Event, m.Data, read, events)
	}
	if err := s.End(); err != nil {
		t.Errorf("the stream ended with: %s", err)
	}
	if n := l.numbers(""); n.Closed["slow"] != 1 || len(n.Resets) == 0 || n.Resets["limit"] != 0 {
		t.Errorf("the hub counts %v and %v", n.Closed, n.Resets)
	}
	back, o := l.open("?channel=a", "Last-Event-ID: "+last)
	if o.Resume != "complete" {
		t.Errorf("who comes back is told %s", o.Resume)
	}
	for ; read < events; read++ {
		if number, _, _ := strings.Cut(back.Expect("message").Data, " "); number != strconv.Itoa(read+1) {
			t.Fatalf("got the event %s after %d", number, read)
		}
	}
}
