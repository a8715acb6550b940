package sse

import "slices"

// A change is on its way to the engine of a stream.
type change struct {
	number uint64
	named  []string // all that the stream gets, as it was asked for
	cover  []string
	at     uint64    // the head when it was made; what is added begins behind it
	resets []Reset   // of what is added
	ends   []Ended   // of what is added
	fill   *backfill // of what is added; nil if it missed nothing
}

// queue hands a change to the stream's engine.
func (s *Subscriber) queue(c *change) {
	s.mu.Lock()
	later := s.planned()
	later.queued = append(later.queued, c)
	later.waiting++
	w := s.waker
	s.pending = true
	s.mu.Unlock()
	if w != nil {
		w.wake(1)
	}
}

// waits reports whether as many changes wait for the stream.
func (s *Subscriber) waits(most int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.later != nil && s.later.waiting >= most
}

// takeChanges takes over changes that were queued. What they take away is gone
// from here on, whenever it was published; what they add waits until the
// subscriber has come to where they were made.
func (s *Subscriber) takeChanges(queued []*change) {
	s.setAside()
	for _, c := range queued {
		s.items = &items{s.named, common(s.cover, c.cover)}
		for _, earlier := range s.changes {
			earlier.cover = common(earlier.cover, c.cover)
			if earlier.fill != nil && !earlier.fill.narrow(c.cover) {
				earlier.fill = nil
			}
		}
		s.backfills = slices.DeleteFunc(s.backfills, func(b *backfill) bool { return !b.narrow(c.cover) })
		s.narrowed = true
		s.changes = append(s.changes, c)
	}
	s.work = slices.DeleteFunc(s.work, func(ch *channel) bool { return s.item(ch) == "" })
	s.ends = slices.DeleteFunc(s.ends, func(e Ended) bool { return s.itemOf(e.Channel) == "" })
}

// changeDue reports whether the subscriber is where its next change was made.
func (s *Subscriber) changeDue() bool {
	return len(s.changes) > 0 && s.position >= s.changes[0].at
}

// bound returns the seq up to which the subscriber may go on with what it gets
// now.
func (s *Subscriber) bound(seq uint64) uint64 {
	if len(s.changes) > 0 {
		seq = min(seq, s.changes[0].at)
	}
	if s.until > 0 {
		seq = min(seq, s.until)
	}
	return seq
}

// makeChange makes the next change, and tells the client: all that it gets of
// what it had, up to where the change was made, it has been sent.
func (s *Subscriber) makeChange() batch {
	c := s.changes[0]
	s.changes = slices.Delete(s.changes, 0, 1)
	s.mu.Lock()
	s.later.waiting--
	s.mu.Unlock()
	h := s.hub
	h.mu.Lock()
	s.advance(max(s.position, c.at))
	s.items = &items{c.named, c.cover}
	s.work = h.news(s)
	if h.forgot(s) {
		s.fallBehind() // there may have been more channels
	}
	s.changeEnds(c)
	h.mu.Unlock()

	if c.fill != nil {
		s.backfills = append(s.backfills, c.fill)
	}
	b := batch{bytes: s.channelsFrame(string(s.appendCursorID(nil)))}
	if len(c.resets) > 0 {
		if c.fill == nil {
			s.filled = fillCursor{c.number, s.position} // who has this frame has been told
		}
		b.bytes = append(b.bytes, s.resetFrame(c.resets)...)
	}
	return b
}

// changeEnds finds what a change makes of the ends that the client is to be told.
func (s *Subscriber) changeEnds(c *change) {
	s.ends = slices.DeleteFunc(s.ends, func(e Ended) bool { return e.Seq > c.at || s.itemOf(e.Channel) == "" })
	s.ends = append(s.ends, c.ends...)
	for _, item := range s.cover {
		if isPattern(item) {
			s.ends = append(s.ends, s.hub.ended.since(c.at, item)...)
		} else if seq := s.hub.ended.seqs[item]; seq > c.at {
			s.ends = append(s.ends, Ended{item, seq})
		}
	}
	sortEnds(s.ends)
	s.ends = slices.Compact(s.ends)
	s.told = s.hub.head.Load()
	s.over = s.hub.allEnded(s)
}
