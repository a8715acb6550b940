package ssetest

import (
	"slices"
	"strings"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A span is the part of a connection that belongs to one epoch: all of it, but
// for a record that begins anew behind an open stream.
type span struct {
	*HistoryConnection
	parts       []part
	first, last int  // of what was seen
	final       bool // the end of the subscriber's latest connection
}

func (sp *span) sightings() []sighting { return sp.seen[sp.first:sp.last] }

// opens reports whether the span begins with the connection.
func (sp *span) opens() bool { return &sp.parts[0] == &sp.HistoryConnection.parts[0] }

func (c *HistoryConnection) spans() (found []span) {
	for i := 0; i < len(c.parts); {
		n := i + 1
		for n < len(c.parts) && c.parts[n].at.epoch == c.parts[i].at.epoch {
			n++
		}
		last := len(c.seen)
		if n < len(c.parts) {
			last = c.parts[n].first
		}
		found = append(found, span{HistoryConnection: c, parts: c.parts[i:n], first: c.parts[i].first, last: last})
		i = n
	}
	return found
}

// A spanCheck walks over what a connection brought, and then compares that with
// what it should have brought.
type spanCheck struct {
	*checker
	span
	cover  []string // what was asked for, without what is part of another
	claims map[string]*claim
	holes  []*hole
	cursor uint32
	got    []uint32 // events, rising
	ended  map[string]bool
	// reached is how far it came on channels that were withdrawn at some time.
	reached map[string]uint32
}

func newSpanCheck(c *checker, sp span) *spanCheck {
	s := &spanCheck{checker: c, span: sp, claims: make(map[string]*claim), ended: make(map[string]bool), reached: make(map[string]uint32)}
	asked := sp.subscriber.asked
	for i, item := range asked {
		within := func(other string) bool { return other != item && sse.Covers(other, item) }
		if slices.Contains(asked[:i], item) || slices.ContainsFunc(asked, within) {
			continue
		}
		s.cover = append(s.cover, item)
		if !strings.HasSuffix(item, "*") {
			if l := c.channels[item]; l != nil {
				s.claims[item] = &claim{line: l}
			}
			continue
		}
		for name, l := range c.channels {
			if sse.Covers(item, name) {
				s.claims[name] = &claim{line: l}
			}
		}
	}
	return s
}

func (s *spanCheck) check() {
	s.open(s.parts[0])
	next := 1
	ends := s.ends
	for i := s.first; i <= s.last; i++ {
		for next < len(s.parts) && s.parts[next].first == i {
			s.begin(s.parts[next], i)
			next++
		}
		for len(ends) > 0 && ends[0].first <= i {
			if ends[0].first >= s.first {
				s.end(ends[0].channel, i)
			}
			ends = ends[1:]
		}
		if i < s.last {
			s.sight(s.seen[i], i)
		}
	}
	s.compare()
	s.countNeedless()
}

func (s *spanCheck) wrong(kind ViolationKind, index int, format string, args ...any) {
	context := ""
	if s.report.Counts[kind] < maxReported {
		context = s.context(index)
	}
	s.add(kind, context, "%s: "+format, append([]any{s.HistoryConnection}, args...)...)
}

// open finds where the claims begin.
func (s *spanCheck) open(p part) {
	since, here := s.sinceHere(s.HistoryConnection)
	earliest := s.opens() && s.since == sinceEarliest
	start := p.at.seq
	switch {
	case !s.opens():
	case here:
		start = since
	case earliest:
		start = 0
	}
	for _, cl := range s.claims {
		cl.start = start
		if earliest && !s.options.ReplaysAll {
			// What is kept of each channel begins somewhere else.
			h := &hole{next: noSeq}
			if p.at.seq > 0 {
				h.next = p.at.seq + 1
			}
			h.endBefore(cl, p.noted)
			cl.holes = append(cl.holes, h)
		}
	}
	if s.opens() {
		s.report.Connections++
		s.report.Lagged += len(s.HistoryConnection.parts) - 1
		s.report.Resumes[p.resume]++
		if fresh := s.since == ""; fresh != (p.resume == sse.ResumeFresh) {
			s.wrong(Unannounced, s.first, "the stream says resume %q", p.resume)
		}
	}
	if elsewhere := s.since != "" && !here && !earliest; (elsewhere || !s.opens()) && !s.whole(p.resets) {
		s.wrong(Unannounced, s.first, "the stream goes on in another record, at %s, but the resets are %v", s.at(p.at.seq), p.resets)
	}
	s.cursor = start
	s.begin(p, s.first)
}

// whole reports whether the resets are of all that was asked for.
func (s *spanCheck) whole(resets []sse.Reset) bool {
	return !slices.ContainsFunc(s.cover, func(item string) bool { return !isReset(resets, item) })
}

// isReset reports whether one of the resets is of all that the name or pattern
// stands for.
func isReset(resets []sse.Reset, item string) bool {
	return slices.ContainsFunc(resets, func(r sse.Reset) bool { return sse.Covers(r.Channel, item) })
}

// begin takes in a frame that may announce holes.
func (s *spanCheck) begin(p part, index int) {
	whole := s.whole(p.resets)
	if p.at.seq < s.cursor && !whole {
		s.wrong(Reordered, index, "the id %s of the frame steps back behind %s", s.at(p.at.seq), s.at(s.cursor))
	}
	for _, r := range p.resets {
		s.report.Resets[r.Reason]++
		s.checkReason(r, index)
	}
	if len(p.resets) > 0 {
		h := &hole{after: max(s.cursor, p.at.seq), next: noSeq, resets: p.resets}
		if whole {
			h.after, h.next = s.cursor, p.at.seq+1
		}
		s.holes = append(s.holes, h)
		for name, cl := range s.claims {
			if isReset(p.resets, name) {
				h.endBefore(cl, p.noted)
				cl.holes = append(cl.holes, h)
			}
		}
	}
	s.cursor = p.at.seq
}

func (s *spanCheck) checkReason(r sse.Reset, index int) {
	switch since, here := s.sinceHere(s.HistoryConnection); {
	case s.options.KeepsAll && (r.Reason == sse.ResetExpired || r.Reason == sse.ResetLimit):
		s.wrong(NeedlessReset, index, "%s is reset (%s), where nothing expires", r.Channel, r.Reason)
	case r.Reason == sse.ResetEpoch && here && s.opens():
		s.wrong(NeedlessReset, index, "%s is reset as if the epoch were another", r.Channel)
	case r.Reason == sse.ResetUnknown && here && len(s.order) > 0 && since <= s.order[len(s.order)-1]:
		s.wrong(NeedlessReset, index, "%s is reset as if there had never been a position %s", r.Channel, s.since)
	}
}

// end takes in that a channel ended.
func (s *spanCheck) end(channel string, index int) {
	switch {
	case !s.covers(channel):
		s.wrong(AfterEnd, index, "channel %s ended, which was not asked for", channel)
	case !s.ending[channel]:
		s.wrong(AfterEnd, index, "channel %s ended, but nobody ended it", channel)
	}
	s.ended[channel] = true
}

func (s *spanCheck) covers(channel string) bool {
	return slices.ContainsFunc(s.cover, func(item string) bool { return sse.Covers(item, channel) })
}

// sight takes in an event, or a move of the cursor.
func (s *spanCheck) sight(at sighting, index int) {
	if at.number == 0 {
		if at.seq < s.cursor {
			s.wrong(Reordered, index, "the id %s steps back behind %s", s.at(at.seq), s.at(s.cursor))
		}
		s.cursor = max(s.cursor, at.seq)
		return
	}
	s.checkOrder(at, index)
	s.cursor = max(s.cursor, at.seq)
	if s.numbers[at.seq] != at.number {
		return // was reported
	}
	names := s.sets[s.published[at.number].set]
	if !slices.ContainsFunc(names, s.covers) {
		s.wrong(Phantom, index, "%s at %s was not asked for", s.describe(at.number), s.at(at.seq))
	}
	s.checkGranted(at, index, names)
	if i := slices.IndexFunc(names, func(name string) bool { return s.ended[name] }); i >= 0 {
		s.wrong(AfterEnd, index, "%s at %s comes after the end of %s", s.describe(at.number), s.at(at.seq), names[i])
	}
	s.endHoles(names, at.seq)
}

// checkOrder checks that an event is behind all before it, and notes that it
// came.
func (s *spanCheck) checkOrder(at sighting, index int) {
	i, again := slices.BinarySearch(s.got, at.seq)
	if !again {
		s.got = slices.Insert(s.got, i, at.seq)
	}
	if at.seq > s.cursor {
		return
	}
	kind := Reordered
	if since, here := s.sinceHere(s.HistoryConnection); again || (here && at.seq <= since) {
		kind = Doubled
	}
	s.wrong(kind, index, "%s comes when the stream is at %s already", s.at(at.seq), s.at(s.cursor))
}
