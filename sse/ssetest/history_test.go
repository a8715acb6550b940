package ssetest_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// A story makes a history by hand. Events have names for the reader; "a" is on
// channel "a", "ab" on "a" and "b", and digits only tell events apart.
type story struct {
	t      *testing.T
	h      *ssetest.History
	events map[string]*ssetest.Publication
}

func position(t *testing.T, id string) sse.Position {
	t.Helper()
	at, err := sse.ParsePosition(id)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// begin begins to publish events, for the first time or again.
func (s *story) begin(names ...string) {
	for _, name := range names {
		if s.events[name] == nil {
			e := sse.Event{Channels: strings.Split(strings.Trim(name, "0123456789"), ""), Name: "n", Data: "data of\r\n" + name}
			s.events[name] = s.h.NewPublication(e)
		}
		s.events[name].Begin()
	}
}

func (s *story) ack(name, id string) { s.events[name].Acknowledged(position(s.t, id)) }

// publish publishes events one after the other, and has them acknowledged from
// the position "e.1" on.
func (s *story) publish(names ...string) {
	for _, name := range names {
		s.begin(name)
		s.ack(name, fmt.Sprintf("e.%d", len(s.events)))
	}
}

// end begins to publish an event that ends its channel.
func (s *story) end(name string, how sse.Ending) {
	e := sse.Event{Channels: []string{name[:1]}, End: how}
	s.events[name] = s.h.NewPublication(e)
	s.events[name].Begin()
}

// A reader is a subscriber of the channels that a word names, a letter each;
// "*" is all.
type reader struct {
	story *story
	s     *ssetest.HistorySubscriber
	c     *ssetest.HistoryConnection
}

func (s *story) subscribe(channels string) *reader {
	return &reader{story: s, s: s.h.NewSubscriber(channels, strings.Split(channels, ""))}
}

// connect connects and sees hub:open. A reset is a channel and a reason.
func (r *reader) connect(since, id string, resets ...string) *reader {
	r.c = r.s.Connect(since)
	resume := "complete"
	if since == "" || since == "latest" {
		resume = "fresh"
	}
	r.own("hub:open", id, resume, resets)
	return r
}

func (r *reader) reset(id string, resets ...string) *reader {
	r.own("hub:reset", id, "reset", resets)
	return r
}

func (r *reader) own(name, id, resume string, resets []string) {
	var list []string
	for _, reset := range resets {
		channel, reason, _ := strings.Cut(reset, " ")
		list = append(list, fmt.Sprintf(`{"channel":%q,"reason":%q}`, channel, reason))
		resume = "reset"
	}
	r.c.Message(sse.Message{Event: name, ID: id, Data: fmt.Sprintf(`{"resume":%q,"reset":[%s]}`, resume, strings.Join(list, ","))})
}

// see sees events at successive positions from e.first on.
func (r *reader) see(first int, names ...string) *reader {
	for i, name := range names {
		e := r.story.events[name].Event
		data := strings.ReplaceAll(e.Data, "\r\n", "\n")
		r.c.Message(sse.Message{Event: e.Name, ID: fmt.Sprintf("e.%d", first+i), Data: data})
	}
	return r
}

func (r *reader) cursor(id string) *reader {
	r.c.Cursor(id)
	return r
}

func (r *reader) ended(channel string) *reader {
	r.c.Message(sse.Message{Event: "hub:end", Data: fmt.Sprintf(`{"channel":%q}`, channel)})
	return r
}

var (
	keepsAll = ssetest.HistoryOptions{KeepsAll: true, ReplaysAll: true}
	durable  = ssetest.HistoryOptions{KeepsAll: true, ReplaysAll: true, Durable: true}
	forgets  = ssetest.HistoryOptions{}
)

type historyCase struct {
	name    string
	options ssetest.HistoryOptions
	tell    func(s *story)
	want    []ssetest.ViolationKind
}

func kinds(k ...ssetest.ViolationKind) []ssetest.ViolationKind { return k }

func runHistories(t *testing.T, cases []historyCase) {
	t.Helper()
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := &story{t, ssetest.NewHistory(tc.options), make(map[string]*ssetest.Publication)}
			tc.tell(s)
			report := s.h.Check()
			got := slices.Sorted(maps.Keys(report.Counts))
			slices.Sort(tc.want)
			if !slices.Equal(got, tc.want) {
				t.Errorf("found %q, want %q\n%v\n%s", got, tc.want, report.Violations, report)
			}
		})
	}
}

// TestHistoryViolations holds that each broken promise is found, and nothing
// else is reported of it.
func TestHistoryViolations(t *testing.T) {
	runHistories(t, []historyCase{
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

// TestHistoryLegal holds that what the protocol allows is not reported.
func TestHistoryLegal(t *testing.T) {
	runHistories(t, []historyCase{
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
// with all numbers and the first violations alone.
func TestHistoryBounds(t *testing.T) {
	s := &story{t, ssetest.NewHistory(forgets), make(map[string]*ssetest.Publication)}
	r := s.subscribe("a").connect("", "e.0")
	const n = 1000
	for i := range n {
		s.publish(fmt.Sprintf("a%d", i))
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
