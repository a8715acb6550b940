package ssetest_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// TestHistoryLegal holds that what the protocol allows is not reported.
func TestHistoryLegal(t *testing.T) {
	runHistories(t, []historyCase{
		{"withdrawn, and what is left of it", forgets, func(s *story) {
			r := s.subscribe("ab").connect("", "e.0")
			s.publish("a1", "a2", "b1")
			r.s.Withdrawn("a")
			s.publish("a3", "ab", "b2")
			r.see(1, "a1").see(3, "b1").see(5, "ab").see(6, "b2")
			r.s.CaughtUp(position(s.t, "e.6"))
		}, kinds()},
		{"live", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "b", "a2")
			r.see(1, "a1").see(3, "a2").cursor("e.3")
			r.s.CaughtUp(position(s.t, "e.3"))
		}, nil},
		{"several channels, one event each", durable, func(s *story) {
			r := s.subscribe("ab").connect("", "e.0")
			s.publish("ab", "bc", "c", "a")
			r.see(1, "ab", "bc").see(4, "a")
		}, nil},
		{"a name within a pattern", durable, func(s *story) {
			r := s.subscribe("a*").connect("", "e.0")
			s.publish("a1", "b1")
			r.see(1, "a1", "b1")
		}, nil},
		{"dropped, before all has come", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "a2")
			r.see(1, "a1")
		}, nil},
		{"resumed", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "a2", "a3")
			r.see(1, "a1").connect("e.1", "e.1").see(2, "a2", "a3")
		}, nil},
		{"an old position is presented", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "a2")
			r.see(1, "a1", "a2").connect("e.1", "e.1").see(2, "a2")
		}, nil},
		{"a fresh one begins anywhere", durable, func(s *story) {
			s.publish("a1", "a2")
			s.subscribe("a").connect("latest", "e.2")
		}, nil},
		{"unknown and not kept", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			s.begin("a2")
			s.ack("a2", "e.1")
			r.see(1, "a2")
		}, nil},
		{"unknown and kept", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			r.see(1, "a1")
		}, nil},
		{"repeated until it is acknowledged", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			s.publish("a2")
			s.begin("a1")
			s.ack("a1", "e.1")
			r.see(1, "a1", "a2")
		}, nil},
		{"refused, then taken", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			s.events["a1"].Refused()
			s.begin("a1")
			s.ack("a1", "e.1")
			r.see(1, "a1")
		}, nil},
		{"in both lives of a record that is not durable", keepsAll, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			r.see(1, "a1").connect("e.1", "f.1", "a epoch")
			s.begin("a1")
			s.ack("a1", "f.2")
			r.c.Message(sse.Message{Event: "n", ID: "f.2", Data: "1 data of\na1"})
		}, nil},
		{"a position that no hub gave", forgets, func(s *story) {
			s.publish("a1")
			s.subscribe("a").connect("what?", "e.1", "a unknown")
			s.subscribe("a").connect("e.99", "e.1", "a unknown")
		}, nil},
		{"concurrent publishes in any order", durable, func(s *story) {
			s.begin("a1", "a2")
			s.ack("a2", "e.1")
			s.ack("a1", "e.2")
		}, nil},
		{"everything is reset", forgets, func(s *story) {
			s.publish("a1", "a2")
			s.subscribe("a").connect("e.0", "e.2", "a expired")
		}, nil},
		{"some is reset", forgets, func(s *story) {
			s.publish("a1", "b1", "a2", "b2")
			r := s.subscribe("ab").connect("e.0", "e.0", "a expired").see(2, "b1").see(4, "b2")
			s.publish("ab")
			r.see(5, "ab")
		}, nil},
		{"some is reset, and an event is delivered for its other channel", forgets, func(s *story) {
			s.publish("ab", "a1", "b1")
			s.subscribe("ab").connect("e.0", "e.0", "a expired").see(1, "ab").see(3, "b1")
		}, nil},
		{"one after the other is reset, and an event is delivered for the first", forgets, func(s *story) {
			s.publish("ab", "b1", "c1")
			r := s.subscribe("abc").connect("", "e.0")
			r.connect("e.0", "e.0", "a expired").reset("e.0", "b expired").see(1, "ab").see(3, "c1")
		}, nil},
		{"a pattern is reset", forgets, func(s *story) {
			s.publish("a1", "b1", "a2")
			s.subscribe("*").connect("e.0", "e.3", "* expired")
		}, nil},
		{"reset within the stream, twice", forgets, func(s *story) {
			r := s.subscribe("ab").connect("", "e.0")
			s.publish("a1", "a2", "b1", "b2", "a3")
			r.see(1, "a1").reset("e.1", "b expired").see(2, "a2").reset("e.2", "a limit").see(5, "a3")
		}, nil},
		{"published while the reset was on its way", forgets, func(s *story) {
			s.publish("a1")
			r := s.subscribe("ab")
			s.begin("a2")
			r.connect("e.0", "e.0", "a expired")
			s.ack("a2", "e.2")
			s.publish("b1")
			r.see(3, "b1")
		}, nil},
		{"earliest of what is kept of each channel", forgets, func(s *story) {
			s.publish("a1", "b1", "a2", "b2", "a3")
			s.subscribe("ab").connect("earliest", "e.0").see(2, "b1").see(4, "b2", "a3")
		}, nil},
		{"earliest of what is kept, where nothing that was seen expires", ssetest.HistoryOptions{KeepsAll: true}, func(s *story) {
			s.publish("a1", "a2")
			s.subscribe("a").connect("earliest", "e.0").see(2, "a2")
		}, nil},
		{"earliest of nothing", forgets, func(s *story) {
			s.publish("a1", "b1")
			r := s.subscribe("a").connect("earliest", "e.2")
			s.publish("a2")
			r.see(3, "a2")
		}, nil},
		{"earliest of more than a replay may hold", forgets, func(s *story) {
			s.publish("a1", "a2")
			s.subscribe("a").connect("earliest", "e.2", "a limit")
		}, nil},
		{"the record begins anew within the stream", keepsAll, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1")
			r.see(1, "a1").reset("f.0", "a epoch")
			s.begin("a2")
			r.c.Message(sse.Message{Event: "n", ID: "f.1", Data: s.events["a2"].Event.Data})
		}, nil},
		{"ended, with an event", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1")
			s.end("a2", sse.EndAfter)
			s.ack("a2", "e.2")
			r.see(1, "a1", "a2").ended("a")
			r.s.Connect("e.2").Nothing()
			r.s.CaughtUp(position(s.t, "e.2"))
		}, nil},
		{"ended, without one", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.end("a1", sse.EndOnly)
			s.ack("a1", "e.1")
			s.publish("b")
			r.ended("a").cursor("e.2")
			r.s.CaughtUp(position(s.t, "e.2"))
		}, nil},
		{"dropped between the last event of a channel and its end", durable, func(s *story) {
			r := s.subscribe("*").connect("", "e.0")
			s.end("a1", sse.EndAfter)
			s.ack("a1", "e.1")
			s.publish("b1")
			r.see(1, "a1").connect("e.1", "e.1").ended("a").see(2, "b1")
		}, nil},
		{"the end of a channel before a pattern was asked for", durable, func(s *story) {
			s.end("a1", sse.EndAfter)
			s.ack("a1", "e.1")
			r := s.subscribe("*").connect("", "e.1")
			r.s.CaughtUp(position(s.t, "e.1"))
		}, nil},
		{"begun anew when the end was forgotten", forgets, func(s *story) {
			s.end("a1", sse.EndAfter)
			s.ack("a1", "e.1")
			s.publish("a2")
		}, nil},
	})
}

// TestHistoryReport holds that the numbers are those of the history, and that a
// violation shows what was seen around it.
func TestHistoryReport(t *testing.T) {
	s := &story{t, ssetest.NewHistory(forgets), make(map[string]*ssetest.Publication)}
	s.publish("a1", "a2", "a3")
	s.begin("a4", "a5")
	s.events["a5"].Refused()
	r := s.subscribe("ab").connect("e.1", "e.1", "b expired").see(3, "a3")
	r.c.Closed("the cable")
	report := s.h.Check()
	want := "events: 3 acknowledged, 1 unknown; 1 attempts refused\n" +
		"deliveries checked: 1, of 1 streams, 1 epochs\n" +
		"streams began: 1 reset\n" +
		"resets: 1 expired; 0 within a stream, 1 of nothing that is known\n" +
		"violations: 1 (1 lost)"
	if got := report.String(); got != want {
		t.Errorf("the report is\n%s\nwant\n%s", got, want)
	}
	for _, part := range []string{"lost: subscriber ab, connection 1", `event 2 on ["a"]`, "e.2", "e.3", "the cable", "b expired"} {
		if got := report.Violations[0].String(); !strings.Contains(got, part) {
			t.Errorf("the violation does not tell %q:\n%s", part, got)
		}
	}
}

// TestHistoryBounds holds that a server which does everything wrong is reported
// with all numbers, an event on two channels counted once, and with the first
// violations alone.
func TestHistoryBounds(t *testing.T) {
	s := &story{t, ssetest.NewHistory(forgets), make(map[string]*ssetest.Publication)}
	r := s.subscribe("ab").connect("", "e.0")
	const n = 1000
	for i := range n {
		s.publish(fmt.Sprintf("ab%d", i))
	}
	r.cursor(fmt.Sprintf("e.%d", n))
	report := s.h.Check()
	if report.Counts[ssetest.Lost] != n || report.Sum() != n || len(report.Violations) >= n {
		t.Errorf("found %s with %d violations, want %d lost, and fewer violations than that", report, len(report.Violations), n)
	}
}

// TestHistoryConcurrent holds that publishers and subscribers may note at the
// same time. The race detector is what looks.
func TestHistoryConcurrent(t *testing.T) {
	h := ssetest.NewHistory(forgets)
	var noting sync.WaitGroup
	for range 4 {
		noting.Go(func() {
			for range 100 {
				p := h.NewPublication(sse.Event{Channels: []string{"a"}})
				p.Begin()
				p.Refused()
			}
		})
		noting.Go(func() {
			s := h.NewSubscriber("s", []string{"a"})
			for range 100 {
				c := s.Connect("")
				c.Message(sse.Message{Event: "hub:open", ID: "e.0", Data: `{"resume":"fresh"}`})
				c.Cursor("e.1")
				c.Message(sse.Message{ID: "e.2", Data: "x"})
			}
		})
	}
	noting.Wait()
	report := h.Check()
	if report.Connections != 400 || report.Refused != 400 || report.Counts[ssetest.Phantom] != 400 {
		t.Errorf("the report is\n%s\nwant 400 refused, streams and phantoms", report)
	}
}
