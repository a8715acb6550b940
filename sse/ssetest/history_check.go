package ssetest

import (
	"fmt"
	"slices"
	"sort"
	"strings"

	"github.com/caddy-sse/caddy-sse/sse"
)

// Check finds what is wrong with all that was noted. It takes time in
// proportion to n log n. Nothing may be noted meanwhile.
func (h *History) Check() *Report {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &checker{
		History: h,
		report: &Report{
			Counts: make(map[ViolationKind]int), Resumes: make(map[sse.Resume]int), Resets: make(map[sse.ResetReason]int),
			Refused: h.refused, Epochs: len(h.epochs),
		},
		seqs:   make([]uint32, len(h.published)),
		ending: make(map[string]bool),
	}
	for _, v := range h.violations {
		c.report.add(v)
	}
	c.count()
	if h.options.Durable && len(h.epochs) > 1 {
		c.add(RecordLost, "", "there were the epochs %v", h.epochs)
	}
	spans := make([][]span, len(h.epochs))
	for _, s := range h.subscribers {
		for i, conn := range s.connections {
			for _, sp := range conn.spans() {
				sp.final = i == len(s.connections)-1 && sp.last == len(conn.seen)
				epoch := sp.parts[0].at.epoch
				spans[epoch] = append(spans[epoch], sp)
			}
		}
	}
	acks := make([][]ack, len(h.epochs))
	for _, a := range h.acks {
		acks[a.at.epoch] = append(acks[a.at.epoch], a)
	}
	for epoch := range h.epochs {
		c.checkEpoch(epoch, acks[epoch], spans[epoch])
	}
	for _, s := range h.subscribers {
		c.checkCaughtUp(s)
	}
	return c.report
}

// A checker checks one epoch after the other.
type checker struct {
	*History
	report *Report

	// The record of an epoch, as far as it is known.
	epoch    int
	numbers  map[uint32]uint32 // the event at each seq
	seqs     []uint32          // the place of each event, zero if it has none
	order    []uint32          // the seqs, rising
	newest   []int             // of those up to each: the index of the one whose publish began last
	channels map[string]*line
	ending   map[string]bool   // channels that somebody may have ended, in whichever epoch
	told     map[sighting]bool // what was reported of the record
}

// A line is a channel's part of the record.
type line struct {
	seqs  []uint32
	begun []int64 // when the publish of each, or of one before it, began at the latest
	ended uint32  // seq of the event that ended the channel; zero if none
}

func (c *checker) add(kind ViolationKind, context, format string, args ...any) {
	c.report.add(Violation{Kind: kind, Text: fmt.Sprintf(format, args...), Context: context})
}

func (c *checker) count() {
	for _, e := range c.published {
		switch {
		case e.acked:
			c.report.Acknowledged++
		case e.open > 0:
			c.report.Unknown++
		}
		if e.ends && e.open > 0 {
			for _, name := range c.sets[e.set] {
				c.ending[name] = true
			}
		}
	}
}

func (c *checker) at(seq uint32) sse.Position { return c.position(place{c.epoch, seq}) }

func (c *checker) checkEpoch(epoch int, acks []ack, spans []span) {
	c.epoch = epoch
	c.numbers = make(map[uint32]uint32)
	clear(c.seqs)
	c.told = make(map[sighting]bool)
	for _, a := range acks {
		c.settle(a.number, a.at.seq, "acknowledged")
	}
	for _, sp := range spans {
		for i, s := range sp.sightings() {
			if s.number == 0 {
				continue
			}
			c.report.Deliveries++
			if c.published[s.number].open == 0 {
				c.add(Phantom, sp.context(sp.first+i), "%s: %s is %s, of which every publish was refused",
					sp.HistoryConnection, c.at(s.seq), c.describe(s.number))
				continue
			}
			c.settle(s.number, s.seq, "delivered")
		}
	}
	c.order = make([]uint32, 0, len(c.numbers))
	for seq := range c.numbers {
		c.order = append(c.order, seq)
	}
	slices.Sort(c.order)
	c.drawLines()
	c.checkTime(acks, spans)
	for _, sp := range spans {
		newSpanCheck(c, sp).check()
	}
	c.checkNothings()
}

// settle gives an event its place in the record.
func (c *checker) settle(number, seq uint32, how string) {
	problem := sighting{seq, number}
	if c.told[problem] {
		return
	}
	if at := c.seqs[number]; at != 0 && at != seq {
		c.told[problem] = true
		kind := Doubled
		if c.published[number].acked {
			kind = WrongPosition
		}
		c.add(kind, "", "%s is %s at %s, but also at %s", c.describe(number), how, c.at(seq), c.at(at))
		return
	}
	if other := c.numbers[seq]; other != 0 && other != number {
		c.told[problem] = true
		c.add(SharedPosition, "", "%s is %s at %s, but there is %s", c.describe(number), how, c.at(seq), c.describe(other))
		return
	}
	c.seqs[number], c.numbers[seq] = seq, number
}

// drawLines finds each channel's part of the record.
func (c *checker) drawLines() {
	c.channels = make(map[string]*line)
	c.newest = make([]int, len(c.order))
	for i, seq := range c.order {
		e := &c.published[c.numbers[seq]]
		c.newest[i] = i
		if i > 0 && c.begin(c.newest[i-1]) > e.begin {
			c.newest[i] = c.newest[i-1]
		}
		for _, name := range c.sets[e.set] {
			l := c.channels[name]
			if l == nil {
				l = &line{}
				c.channels[name] = l
			}
			l.add(seq, e)
			if l.ended != 0 && l.ended < seq && c.options.KeepsAll {
				c.add(AfterEnd, "", "%s is at %s, but channel %s ended at %s", c.describe(c.numbers[seq]), c.at(seq), name, c.at(l.ended))
			}
		}
	}
}

func (l *line) add(seq uint32, e *published) {
	if e.ends && l.ended == 0 {
		l.ended = seq
	}
	if e.silent {
		return
	}
	begun := e.begin
	if n := len(l.begun); n > 0 {
		begun = max(begun, l.begun[n-1])
	}
	l.seqs = append(l.seqs, seq)
	l.begun = append(l.begun, begun)
}

// after returns the index of the first event behind a seq.
func (l *line) after(seq uint32) int {
	return sort.Search(len(l.seqs), func(i int) bool { return l.seqs[i] > seq })
}

// begin returns when the publish of an event of the order began.
func (c *checker) begin(index int) int64 { return c.published[c.numbers[c.order[index]]].begin }

// checkTime finds publishes that began when a position was known already, and
// got one that is not behind it.
func (c *checker) checkTime(acks []ack, spans []span) {
	for _, a := range acks {
		if c.numbers[a.at.seq] != a.number {
			continue // was reported
		}
		if late, ok := c.begunAfter(a.end, a.at.seq); ok {
			c.add(Overtaken, "", "%s has %s, though it began after the acknowledgement of %s at %s",
				c.describe(c.numbers[late]), c.at(late), c.describe(a.number), c.at(a.at.seq))
		}
	}
	for _, sp := range spans {
		for _, p := range sp.parts {
			if late, ok := c.begunAfter(p.noted, p.at.seq); ok {
				c.add(Overtaken, sp.context(p.first), "%s has %s, though it began after %s was told that the record is at %s",
					c.describe(c.numbers[late]), c.at(late), sp.HistoryConnection, c.at(p.at.seq))
			}
		}
	}
}

// begunAfter returns an event up to a seq whose publish began after a time.
func (c *checker) begunAfter(time int64, through uint32) (seq uint32, ok bool) {
	n := sort.Search(len(c.order), func(i int) bool { return c.order[i] > through })
	if n == 0 || c.begin(c.newest[n-1]) <= time {
		return 0, false
	}
	return c.order[c.newest[n-1]], true
}

// checkNothings checks those who were told that there is nothing left for them.
func (c *checker) checkNothings() {
	for _, s := range c.subscribers {
		for _, conn := range s.connections {
			if since, ok := c.sinceHere(conn); ok && conn.nothing {
				c.checkNothing(conn, since)
			}
		}
	}
}

func (c *checker) checkNothing(conn *HistoryConnection, since uint32) {
	for _, name := range conn.subscriber.asked {
		if !c.ending[name] {
			c.add(AfterEnd, "", "%s: was answered that there is nothing left, but %s has not ended", conn, name)
		}
		l := c.channels[name]
		if l == nil {
			continue
		}
		if i := l.after(since); i < len(l.seqs) {
			c.add(Lost, "", "%s: was answered that there is nothing left, but there is %s on %s at %s",
				conn, c.describe(c.numbers[l.seqs[i]]), name, c.at(l.seqs[i]))
		}
	}
}

// sinceHere returns the seq that a connection presented, if that was of the
// epoch in hand.
func (c *checker) sinceHere(conn *HistoryConnection) (uint32, bool) {
	epoch, _, _ := strings.Cut(conn.since, ".")
	if i, ok := c.epochOf[epoch]; !ok || i != c.epoch {
		return 0, false
	}
	at, ok := c.parse(conn.since)
	return at.seq, ok
}

// checkCaughtUp finds those who are still where they should not be. What they
// lack is found with the rest of their connection.
func (c *checker) checkCaughtUp(s *HistorySubscriber) {
	if !s.hasThrough {
		return
	}
	if len(s.connections) == 0 {
		c.add(Lost, "", "subscriber %s was never connected, but should be at %s", s.name, c.position(s.through))
		return
	}
	conn := s.connections[len(s.connections)-1]
	switch {
	case conn.nothing:
	case len(conn.parts) == 0:
		c.add(Lost, "", "%s: was not opened (%s), but the subscriber should be at %s", conn, conn.closing, c.position(s.through))
	case conn.parts[len(conn.parts)-1].at.epoch != s.through.epoch:
		c.add(Lost, conn.context(len(conn.seen)), "%s: is in another epoch, but should be at %s", conn, c.position(s.through))
	}
}
