package ssetest_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
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
