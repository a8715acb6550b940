package sse

import (
	"cmp"
	"slices"
	"strings"
)

// ends knows which channels have ended, and when. It forgets those that ended
// first when they are more than [MaxEnded].
type ends struct {
	seqs  map[string]uint64
	order []Ended // holds some that are forgotten; see current
}

func newEnds() ends { return ends{seqs: make(map[string]uint64)} }

// add notes that an entry ended a channel. Entries come in order.
func (x *ends) add(channel string, seq uint64) {
	channel = strings.Clone(channel) // it may be a part of a publisher's whole request
	x.seqs[channel] = seq
	x.order = append(x.order, Ended{channel, seq})
}

// drop forgets that an entry ended a channel.
func (x *ends) drop(channel string, seq uint64) {
	if x.seqs[channel] == seq {
		delete(x.seqs, channel)
	}
}

// undo takes back what was added last, as often as that.
func (x *ends) undo(times int) {
	keep := len(x.order) - times
	for _, e := range x.order[keep:] {
		x.drop(e.Channel, e.Seq)
	}
	x.order = x.order[:keep]
}

// trim keeps within the bound, but leaves what was added last alone.
func (x *ends) trim(last int) {
	gone := 0
	for gone < len(x.order)-last {
		e := x.order[gone]
		if x.current(e) {
			if len(x.seqs) <= MaxEnded {
				break
			}
			delete(x.seqs, e.Channel)
		}
		gone++
	}
	x.order = slices.Delete(x.order, 0, gone)
}

func (x *ends) current(e Ended) bool { return x.seqs[e.Channel] == e.Seq }

// list returns the channels that have ended, in order, without what was added
// last.
func (x *ends) list(last int) []Ended {
	known := make([]Ended, 0, len(x.seqs))
	for _, e := range x.order[:len(x.order)-last] {
		if x.current(e) {
			known = append(known, e)
		}
	}
	return known
}

// since returns those that a pattern stands for and that ended behind a seq.
func (x *ends) since(seq uint64, pattern string) (found []Ended) {
	for _, e := range slices.Backward(x.order) {
		if e.Seq <= seq {
			break
		}
		if x.current(e) && Covers(pattern, e.Channel) {
			found = append(found, e)
		}
	}
	return found
}

// noteEnds takes over what an entry says of its channels: they end, or one that
// was forgotten to have ended begins anew.
func (h *Hub) noteEnds(e *Entry) {
	seq := e.Position.Seq
	for _, name := range e.Event.Channels {
		at, ended := h.ended.seqs[name]
		switch {
		case e.Event.End != EndNone && at < seq:
			h.ended.add(name, seq)
		case e.Event.End == EndNone && ended && at < seq:
			h.ended.drop(name, at)
		}
	}
	h.ended.trim(0)
}

// announceEnds wakes the subscribers of the channels that an entry ended.
func (h *Hub) announceEnds(e *Entry) {
	for _, name := range e.Event.Channels {
		for _, t := range h.index.topics(nil, name) {
			for _, s := range t.subscribers {
				s.markEnd(e.Position.Seq)
			}
		}
	}
}

// markEnd tells the subscriber that one of its channels has ended.
func (s *Subscriber) markEnd(seq uint64) {
	s.mu.Lock()
	s.planned().ended = seq
	wake := !s.pending
	s.pending = true
	w := s.waker
	s.mu.Unlock()
	if wake && w != nil {
		w.wake(1)
	}
}

// beginEnds finds what one who has just joined is to be told: which of the
// channels that it named have ended, whenever that was, and of its patterns
// those that ended at its position or behind it: it may have received the event
// there, and nothing more.
func (h *Hub) beginEnds(s *Subscriber) {
	for _, item := range s.cover {
		if isPattern(item) {
			s.ends = append(s.ends, h.ended.since(max(s.position, 1)-1, item)...)
		} else if seq, ok := h.ended.seqs[item]; ok {
			s.ends = append(s.ends, Ended{item, seq})
		}
	}
	sortEnds(s.ends)
	s.told = h.head.Load()
	s.over = h.allEnded(s)
}

// allEnded reports whether nothing more can come on any of the channels.
func (h *Hub) allEnded(s *Subscriber) bool {
	return len(s.cover) > 0 && !slices.ContainsFunc(s.cover, func(item string) bool {
		_, ended := h.ended.seqs[item] // never of a pattern
		return !ended
	})
}

// findEnds adds what ended since it was looked for last.
func (s *Subscriber) findEnds() {
	s.setAside()
	h := s.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, item := range s.cover {
		if isPattern(item) {
			s.ends = append(s.ends, h.ended.since(s.told, item)...)
		} else if seq := h.ended.seqs[item]; seq > s.told {
			s.ends = append(s.ends, Ended{item, seq})
		}
	}
	sortEnds(s.ends)
	s.told = h.head.Load()
	s.over = h.allEnded(s)
}

// lookForEnds finds ends if there are some that were not looked for.
func (s *Subscriber) lookForEnds() {
	s.mu.Lock()
	end := s.later.newestEnd()
	s.mu.Unlock()
	if end > s.told {
		s.findEnds()
	}
}

// pullUntilEnd goes on to where a channel ended, and tells that. Events behind
// it come later: if the connection breaks in between, the position that the
// client presents next must not be one behind an end that it was not told.
func (s *Subscriber) pullUntilEnd() batch {
	end := s.ends[0].Seq
	if s.position < end {
		work := slices.Clone(s.work) // which pullEvents empties as if there were no more
		b := s.pullEvents(end)
		if !s.behind {
			s.work = work
		}
		if b.some() {
			return b
		}
	}
	return batch{bytes: s.appendEnds(nil, end)}
}

// appendEnds appends what tells which channels ended up to a seq.
func (s *Subscriber) appendEnds(b []byte, through uint64) []byte {
	told := 0
	for told < len(s.ends) && s.ends[told].Seq <= through {
		b = appendEnd(b, s.ends[told].Channel)
		told++
	}
	switch {
	case told == 0: // there may be no aside
	case told == len(s.ends):
		s.ends = nil
	default:
		s.ends = s.ends[told:]
	}
	return b
}

func sortEnds(ends []Ended) {
	slices.SortStableFunc(ends, func(a, b Ended) int { return cmp.Compare(a.Seq, b.Seq) })
}
