package ssetest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A HistorySubscriber is one client with its set of channels, over one
// connection after the other.
type HistorySubscriber struct {
	history     *History
	name        string
	asked       []string // names and patterns
	withdrawn   []withdrawal
	connections []*HistoryConnection
	through     place // what it must have seen at the end
	hasThrough  bool
}

// NewSubscriber notes a subscriber of channels and prefix patterns. The name
// tells it from others in what is reported. The channels must not be modified
// afterwards.
func (h *History) NewSubscriber(name string, channels []string) *HistorySubscriber {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := &HistorySubscriber{history: h, name: name, asked: channels}
	h.subscribers = append(h.subscribers, s)
	return s
}

// CaughtUp says that the latest connection was open and read long enough to have
// brought everything up to a position: it is held against the server if it did
// not.
func (s *HistorySubscriber) CaughtUp(through sse.Position) {
	h := s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	s.through, s.hasThrough = h.place(through)
}

// A HistoryConnection is what one stream of a subscriber brought.
type HistoryConnection struct {
	subscriber *HistorySubscriber
	number     int    // of the subscriber's connections, from 1
	since      string // what was presented
	parts      []part
	seen       []sighting
	ends       []sightedEnd
	closing    string // why it ended
	nothing    bool   // it was answered 204
}

// A part of a connection begins with hub:open or hub:reset.
type part struct {
	first  int // how much was seen before it
	at     place
	noted  int64 // after it was received
	resume sse.Resume
	resets []sse.Reset
}

// A sighting is an event, or a place that the client's cursor was moved to
// without one.
type sighting struct {
	seq    uint32
	number uint32 // zero without an event
}

type sightedEnd struct {
	first   int // how much was seen before it
	channel string
}

const sinceEarliest = "earliest"

// Connect notes that a request for a stream is about to be sent, with what it
// presents: a position, "earliest", or
// "latest" or nothing to begin now.
func (s *HistorySubscriber) Connect(since string) *HistoryConnection {
	h := s.history
	h.mu.Lock()
	defer h.mu.Unlock()
	if since == "latest" {
		since = ""
	}
	c := &HistoryConnection{subscriber: s, number: len(s.connections) + 1, since: since}
	s.connections = append(s.connections, c)
	return c
}

// Nothing notes that the server answered that there is nothing to wait for: 204.
func (c *HistoryConnection) Nothing() { c.nothing = true }

// Closed notes why the connection ended. It only serves those who read of a
// violation: that something is missing is decided by the ids that were received.
func (c *HistoryConnection) Closed(why string) { c.closing = why }

// Cursor notes that the last event ID was moved without an event.
func (c *HistoryConnection) Cursor(id string) {
	if at, ok := c.place(id, "an id without an event"); ok {
		c.seen = append(c.seen, sighting{seq: at.seq})
	}
}

// Message notes what the stream brought, be it an event or what the hub sends
// of its own. The message's id is the last event ID, whether or not it had an
// id line.
func (c *HistoryConnection) Message(m sse.Message) {
	name, own := strings.CutPrefix(m.Event, "hub:")
	switch {
	case !own:
		c.event(m)
	case name == "open" || name == "reset":
		c.begin(name, m)
	case name == "end":
		var end struct{ Channel string }
		if c.decode(m, &end) {
			c.ends = append(c.ends, sightedEnd{len(c.seen), end.Channel})
		}
	case name == "close":
		c.closing = m.Data
	}
}

func (c *HistoryConnection) begin(name string, m sse.Message) {
	if (name == "open") != (len(c.parts) == 0) {
		c.malformed("%s is the frame %d of its kind", m.Event, len(c.parts)+1)
		return
	}
	var told struct {
		Resume sse.Resume
		Reset  []sse.Reset
	}
	if !c.decode(m, &told) {
		return
	}
	h := c.subscriber.history
	h.mu.Lock()
	at, ok := h.parse(m.ID)
	h.mu.Unlock()
	if !ok {
		c.malformed("%s has the id %q", m.Event, m.ID)
		return
	}
	c.parts = append(c.parts, part{first: len(c.seen), at: at, noted: h.now(), resume: told.Resume, resets: told.Reset})
	if (told.Resume == sse.ResumeReset) != (len(told.Reset) > 0) {
		c.malformed("%s says resume %q with %d resets", m.Event, told.Resume, len(told.Reset))
	}
	for _, r := range told.Reset {
		if !slices.Contains(c.subscriber.asked, r.Channel) {
			c.malformed("%s resets %q, which was not asked for", m.Event, r.Channel)
		}
	}
}

func (c *HistoryConnection) decode(m sse.Message, into any) bool {
	err := json.Unmarshal([]byte(m.Data), into)
	if err != nil {
		c.malformed("%s cannot be read: %s", m.Event, err)
	}
	return err == nil
}

func (c *HistoryConnection) event(m sse.Message) {
	at, ok := c.place(m.ID, "an event")
	if !ok {
		return
	}
	number := numberOf(m.Data)
	h := c.subscriber.history
	h.mu.Lock()
	known := number > 0 && number < uint32(len(h.published))
	same := known && h.published[number].sum == checksum(m.Event, m.Data)
	h.mu.Unlock()
	if !same {
		c.wrong(Phantom, "%s: nobody published event %q with data %.100q", m.ID, m.Event, m.Data)
		number = 0 // its place on the wire is real all the same
	}
	c.seen = append(c.seen, sighting{at.seq, number})
}

// place reads an id and checks that it belongs to the record that the stream is
// at.
func (c *HistoryConnection) place(id, what string) (place, bool) {
	if len(c.parts) == 0 {
		c.malformed("%s with id %q comes before hub:open", what, id)
		return place{}, false
	}
	h := c.subscriber.history
	h.mu.Lock()
	at, ok := h.parse(id)
	h.mu.Unlock()
	switch {
	case !ok:
		c.malformed("%s has the id %q", what, id)
	case at.epoch != c.parts[len(c.parts)-1].at.epoch:
		c.wrong(Unannounced, "%s has the id %q: the epoch changed without a reset", what, id)
		ok = false
	}
	return at, ok
}

func (c *HistoryConnection) malformed(format string, args ...any) {
	c.wrong(Malformed, format, args...)
}

func (c *HistoryConnection) wrong(kind ViolationKind, format string, args ...any) {
	h := c.subscriber.history
	h.mu.Lock()
	defer h.mu.Unlock()
	h.wrong(Violation{Kind: kind, Text: c.String() + ": " + fmt.Sprintf(format, args...)})
}

// String names the connection.
func (c *HistoryConnection) String() string {
	return fmt.Sprintf("subscriber %s, connection %d since %q", c.subscriber.name, c.number, c.since)
}
