package ssetest_test

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// TestHistoryViolations holds that each broken promise is found, and nothing
// else is reported of it.
func TestHistoryViolations(t *testing.T) {
	runHistories(t, []historyCase{
		{"published when it had been withdrawn", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			r.s.Withdrawn("a")
			s.ack("a1", "e.1")
			s.publish("a2")
			r.see(1, "a1").see(2, "a2")
		}, kinds(ssetest.NotGranted)},
		{"withdrawn on one channel, and on the other lost", forgets, func(s *story) {
			r := s.subscribe("ab").connect("", "e.0")
			r.s.Withdrawn("a")
			s.publish("b1", "a1", "b2")
			r.see(3, "b2")
		}, kinds(ssetest.Lost)},
		{"lost before it was withdrawn", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "a2", "a3")
			r.s.Withdrawn("a")
			r.see(1, "a1").see(3, "a3")
		}, kinds(ssetest.Lost)},
		{"lost in between", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "a2", "a3")
			r.see(1, "a1").see(3, "a3")
		}, kinds(ssetest.Lost)},
		{"lost, and passed over by the cursor", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "b")
			r.cursor("e.2")
		}, kinds(ssetest.Lost)},
		{"lost on one of several channels", forgets, func(s *story) {
			r := s.subscribe("ab").connect("", "e.0")
			s.publish("a1", "ab", "a2")
			r.see(1, "a1").see(3, "a2")
		}, kinds(ssetest.Lost)},
		{"lost behind a pattern", forgets, func(s *story) {
			r := s.subscribe("*").connect("", "e.0")
			s.publish("a1", "b1", "c1")
			r.see(1, "a1").see(3, "c1")
		}, kinds(ssetest.Lost)},
		{"lost between two connections", forgets, func(s *story) {
			s.publish("a1", "a2", "a3")
			r := s.subscribe("a").connect("e.0", "e.0").see(1, "a1")
			r.connect("e.1", "e.1").see(3, "a3")
		}, kinds(ssetest.Lost)},
		{"lost at the end", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "a2")
			r.see(1, "a1")
			r.s.CaughtUp(position(s.t, "e.2"))
		}, kinds(ssetest.Lost)},
		{"never came back", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1")
			r.see(1, "a1")
			r.s.Connect("e.1")
			r.s.CaughtUp(position(s.t, "e.1"))
		}, kinds(ssetest.Lost)},
		{"lost as the first frame runs ahead", forgets, func(s *story) {
			s.publish("a1", "a2")
			s.subscribe("a").connect("e.0", "e.1").see(2, "a2")
		}, kinds(ssetest.Lost)},
		{"lost on a channel that is not reset", forgets, func(s *story) {
			s.publish("a1", "b1", "a2", "b2")
			s.subscribe("ab").connect("e.0", "e.0", "a expired").see(4, "b2")
		}, kinds(ssetest.Lost)},
		{"lost behind a reset", forgets, func(s *story) {
			s.publish("a1", "a2")
			r := s.subscribe("a").connect("e.0", "e.2", "a expired")
			s.publish("a3", "a4")
			r.see(4, "a4")
		}, kinds(ssetest.Lost)},
		{"lost behind a reset of some, published when it was told", forgets, func(s *story) {
			s.publish("a1", "b1")
			r := s.subscribe("ab").connect("e.0", "e.0", "a expired").see(2, "b1")
			s.publish("a2", "b2")
			r.see(4, "b2")
		}, kinds(ssetest.Lost)},
		{"lost behind a reset of some, and behind an event", forgets, func(s *story) {
			s.publish("a1", "a2", "a3", "a4")
			s.subscribe("ab").connect("e.0", "e.0", "a expired").see(2, "a2").see(4, "a4")
		}, kinds(ssetest.Lost)},
		{"lost before a reset in the stream", forgets, func(s *story) {
			r := s.subscribe("ab").connect("", "e.0")
			s.publish("a1", "b1", "a2")
			r.see(2, "b1").reset("e.2", "a expired")
		}, kinds(ssetest.Lost)},
		{"lost in the middle of the earliest", forgets, func(s *story) {
			s.publish("a1", "a2", "a3")
			s.subscribe("a").connect("earliest", "e.0").see(1, "a1").see(3, "a3")
		}, kinds(ssetest.Lost)},
		{"lost behind the place at which the earliest begins", forgets, func(s *story) {
			s.publish("a1")
			s.begin("a2")
			r := s.subscribe("a").connect("earliest", "e.1")
			s.ack("a2", "e.2")
			s.publish("a3")
			r.see(3, "a3")
		}, kinds(ssetest.Lost)},
		{"lost from the earliest where all is kept", keepsAll, func(s *story) {
			s.publish("a1", "a2")
			s.subscribe("a").connect("earliest", "e.0").see(2, "a2")
		}, kinds(ssetest.Lost)},
		{"lost at a restart", durable, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "a2", "a3")
			r.see(1, "a1").connect("e.1", "e.1").see(3, "a3")
		}, kinds(ssetest.Lost)},
		{"lost before the end of the channel", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1")
			s.end("a2", sse.EndOnly)
			s.ack("a2", "e.2")
			r.ended("a")
		}, kinds(ssetest.Lost)},
		{"lost to one who is told that nothing is left", forgets, func(s *story) {
			s.publish("a1", "a2")
			s.end("a3", sse.EndOnly)
			s.ack("a3", "e.3")
			s.subscribe("a").s.Connect("e.1").Nothing()
		}, kinds(ssetest.Lost)},
		{"the end of a channel is not told", keepsAll, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.end("a1", sse.EndAfter)
			s.ack("a1", "e.1")
			r.see(1, "a1")
			r.s.CaughtUp(position(s.t, "e.1"))
		}, kinds(ssetest.Lost)},
		{"the end of a channel is not told behind a pattern", keepsAll, func(s *story) {
			r := s.subscribe("*").connect("", "e.0")
			s.end("a1", sse.EndOnly)
			s.ack("a1", "e.1")
			r.cursor("e.1")
			r.s.CaughtUp(position(s.t, "e.1"))
		}, kinds(ssetest.Lost)},
		{"the end of a channel is passed over", keepsAll, func(s *story) {
			r := s.subscribe("*").connect("", "e.0")
			s.end("a1", sse.EndOnly)
			s.ack("a1", "e.1")
			s.publish("b1")
			r.see(2, "b1")
		}, kinds(ssetest.Lost)},
		{"the end of a channel is not told to one who comes back with it", keepsAll, func(s *story) {
			s.end("a1", sse.EndAfter)
			s.ack("a1", "e.1")
			s.publish("b1")
			s.subscribe("*").connect("e.1", "e.1").see(2, "b1")
		}, kinds(ssetest.Lost)},
		{"missing, never acknowledged, but another got it", forgets, func(s *story) {
			r, other := s.subscribe("a").connect("", "e.0"), s.subscribe("*").connect("", "e.0")
			s.begin("a1")
			s.publish("a2")
			other.see(1, "a1")
			r.see(2, "a2")
		}, kinds(ssetest.Missing)},
		{"doubled at once", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1")
			r.see(1, "a1").see(1, "a1")
		}, kinds(ssetest.Doubled)},
		{"doubled after a reconnect", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1")
			r.see(1, "a1").connect("e.1", "e.1").see(1, "a1")
		}, kinds(ssetest.Doubled)},
		{"doubled in the record", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			r.see(1, "a1", "a1")
		}, kinds(ssetest.Doubled)},
		{"reordered", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "a2")
			r.see(2, "a2").see(1, "a1")
		}, kinds(ssetest.Reordered)},
		{"a cursor that steps back", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1", "a2")
			r.see(1, "a1", "a2").cursor("e.1")
		}, kinds(ssetest.Reordered)},
		{"a first frame that steps back", forgets, func(s *story) {
			s.publish("a1")
			s.subscribe("a").connect("e.1", "e.0")
		}, kinds(ssetest.Reordered)},
		{"another epoch without a reset", forgets, func(s *story) {
			s.publish("a1")
			s.subscribe("a").connect("e.1", "f.0")
		}, kinds(ssetest.Unannounced)},
		{"another epoch with a reset of some", forgets, func(s *story) {
			s.publish("a1")
			s.subscribe("ab").connect("e.1", "f.0", "a epoch")
		}, kinds(ssetest.Unannounced)},
		{"another epoch within the stream, with a reset of some", forgets, func(s *story) {
			s.subscribe("ab").connect("", "e.0").reset("f.0", "a epoch")
		}, kinds(ssetest.Unannounced)},
		{"another epoch within the stream", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			r.c.Message(sse.Message{Event: "n", ID: "f.1", Data: s.events["a1"].Event.Data})
		}, kinds(ssetest.Unannounced)},
		{"a position that is not looked at", forgets, func(s *story) {
			s.publish("a1")
			r := s.subscribe("a")
			r.c = r.s.Connect("e.1")
			r.own("hub:open", "e.1", "fresh", nil)
		}, kinds(ssetest.Unannounced)},
		{"phantom", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			r.c.Message(sse.Message{ID: "e.1", Data: "17 never published"})
		}, kinds(ssetest.Phantom)},
		{"phantom, other data", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			r.c.Message(sse.Message{Event: "n", ID: "e.1", Data: s.events["a1"].Event.Data + "x"})
		}, kinds(ssetest.Phantom)},
		{"phantom, other name", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			r.c.Message(sse.Message{Event: "m", ID: "e.1", Data: "1 data of\na1"})
		}, kinds(ssetest.Phantom)},
		{"phantom, refused", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.begin("a1")
			s.events["a1"].Refused()
			r.see(1, "a1")
		}, kinds(ssetest.Phantom)},
		{"phantom, on another channel", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("b")
			r.see(1, "b")
		}, kinds(ssetest.Phantom)},
		{"delivered with another id than acknowledged", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.publish("a1")
			r.see(2, "a1")
		}, kinds(ssetest.WrongPosition, ssetest.Lost)},
		{"a repeat that is answered otherwise", forgets, func(s *story) {
			s.publish("a1")
			s.begin("a1")
			s.ack("a1", "e.2")
		}, kinds(ssetest.WrongPosition)},
		{"two events acknowledged at a position", forgets, func(s *story) {
			s.begin("a1", "a2")
			s.ack("a1", "e.1")
			s.ack("a2", "e.1")
		}, kinds(ssetest.SharedPosition)},
		{"two events seen at a position", forgets, func(s *story) {
			s.begin("a1", "a2")
			s.subscribe("a").connect("e.0", "e.0").see(1, "a1")
			s.subscribe("a").connect("e.0", "e.0").see(1, "a2")
		}, kinds(ssetest.SharedPosition)},
		{"overtaken", forgets, func(s *story) {
			s.begin("a1")
			s.ack("a1", "e.2")
			s.begin("a2")
			s.ack("a2", "e.1")
		}, kinds(ssetest.Overtaken)},
		{"overtaken by an event that was only seen", forgets, func(s *story) {
			s.begin("a1")
			s.ack("a1", "e.2")
			s.begin("a2")
			s.subscribe("a").connect("e.0", "e.0").see(1, "a2", "a1")
		}, kinds(ssetest.Overtaken)},
		{"ordered before a head that was told", forgets, func(s *story) {
			s.subscribe("a").connect("", "e.5")
			s.begin("a1")
			s.ack("a1", "e.4")
		}, kinds(ssetest.Overtaken)},
		{"behind the end of its channel", keepsAll, func(s *story) {
			s.end("a1", sse.EndAfter)
			s.ack("a1", "e.1")
			s.begin("a2")
			s.ack("a2", "e.2")
		}, kinds(ssetest.AfterEnd)},
		{"delivered behind the end of its channel", forgets, func(s *story) {
			r := s.subscribe("a").connect("", "e.0")
			s.end("a1", sse.EndAfter)
			s.begin("a2")
			r.see(1, "a1").ended("a").see(2, "a2")
		}, kinds(ssetest.AfterEnd)},
		{"an end that is none", forgets, func(s *story) {
			s.publish("a1")
			s.subscribe("a").connect("e.1", "e.1").ended("a")
		}, kinds(ssetest.AfterEnd)},
		{"an end of another channel", forgets, func(s *story) {
			s.end("b1", sse.EndAfter)
			s.subscribe("a").connect("", "e.0").ended("b")
		}, kinds(ssetest.AfterEnd)},
		{"nothing left on a channel that goes on", forgets, func(s *story) {
			s.publish("a1")
			s.subscribe("a").s.Connect("e.1").Nothing()
		}, kinds(ssetest.AfterEnd)},
		{"a reset where nothing expires", keepsAll, func(s *story) {
			s.publish("a1")
			s.subscribe("a").connect("e.0", "e.1", "a expired")
		}, kinds(ssetest.NeedlessReset)},
		{"a reset within a stream where nothing expires", keepsAll, func(s *story) {
			s.publish("a1")
			s.subscribe("a").connect("e.0", "e.0").reset("e.1", "a limit")
		}, kinds(ssetest.NeedlessReset)},
		{"a reset for an epoch that goes on", forgets, func(s *story) {
			s.publish("a1")
			s.subscribe("a").connect("e.0", "e.1", "a epoch")
		}, kinds(ssetest.NeedlessReset)},
		{"a position that is not known any more", forgets, func(s *story) {
			s.publish("a1", "a2")
			s.subscribe("a").connect("e.2", "e.1", "a unknown")
		}, kinds(ssetest.NeedlessReset)},
		{"a durable record that begins anew", durable, func(s *story) {
			s.publish("a1")
			s.subscribe("a").connect("e.1", "f.0", "a epoch")
		}, kinds(ssetest.RecordLost)},
		{"an event before the first frame", forgets, func(s *story) {
			s.publish("a1")
			r := s.subscribe("a")
			r.c = r.s.Connect("")
			r.see(1, "a1")
		}, kinds(ssetest.Malformed)},
		{"a second first frame", forgets, func(s *story) {
			s.subscribe("a").connect("", "e.0").own("hub:open", "e.0", "fresh", nil)
		}, kinds(ssetest.Malformed)},
		{"a reset of what was not asked for", forgets, func(s *story) {
			s.subscribe("a").connect("", "e.0").reset("e.0", "b expired")
		}, kinds(ssetest.Malformed)},
		{"a reset of nothing", forgets, func(s *story) {
			s.subscribe("a").connect("", "e.0").reset("e.0")
		}, kinds(ssetest.Malformed)},
		{"an id that is none", forgets, func(s *story) {
			s.begin("a1")
			r := s.subscribe("a").connect("", "e.0")
			r.c.Message(sse.Message{Event: "n", ID: "17", Data: s.events["a1"].Event.Data})
		}, kinds(ssetest.Malformed)},
	})
}
