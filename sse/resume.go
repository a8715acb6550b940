package sse

import (
	"cmp"
	"container/list"
	"slices"
	"strings"
	"time"
)

// begin decides where a subscriber that has just joined begins, and what its
// first frame says of it. Both follow from the record alone: what is kept, and
// the exact seq up to which each channel's events are gone.
func (h *Hub) begin(s *Subscriber, start Start, limit int) {
	head := h.head.Load()
	s.position = head
	switch {
	case start.kind == startLatest:
		s.opening.resume = ResumeFresh
	case start.kind == startEarliest:
		s.position = 0
		s.opening.resume = ResumeComplete
		if h.replay(s, head, limit); len(s.work) == 0 {
			s.advance(head) // there is nothing that it could be behind of
		}
	case start.kind == startUnknown, start.after.Epoch == h.epoch && start.after.Seq > head:
		s.resetAll(ResetUnknown)
	case start.after.Epoch != h.epoch:
		s.resetAll(ResetEpoch)
	default:
		s.position = start.after.Seq
		s.opening.resume = ResumeComplete
		s.opening.resets = h.holes(s)
		h.replay(s, head, limit)
	}
	if len(s.opening.resets) > 0 {
		s.opening.resume = ResumeReset
		h.countResets(s.opening.resets)
	}
	s.work = slices.DeleteFunc(s.work, func(ch *channel) bool { return ch.last <= s.after(ch) })
}

// resetAll resets everything that the subscriber asked for.
func (s *Subscriber) resetAll(reason ResetReason) {
	for _, name := range s.cover {
		s.opening.resets = append(s.opening.resets, Reset{name, reason})
	}
}

// holes returns a reset for each name and pattern of which events after the
// subscriber's position are gone.
func (h *Hub) holes(s *Subscriber) []Reset {
	var resets []Reset
	oldest := h.oldest()
	for _, ch := range h.news(s) {
		if ch.kept(h.options.HistoryCount, oldest).from > s.position {
			resets = addReset(resets, s.item(ch), ResetExpired)
		}
	}
	for _, item := range s.cover {
		ch := h.index.channels[item] // nil for a pattern
		if (ch == nil && h.forgotten > s.position) || (ch != nil && ch.forgotten > s.position) {
			resets = addReset(resets, item, ResetExpired)
		}
	}
	return resets
}

// replay gives the subscriber what its channels keep after its position,
// except for those that are reset: they continue at the head, since what
// follows a hole would only confuse a client that is about to fetch the state
// anew.
func (h *Hub) replay(s *Subscriber, head uint64, limit int) {
	limit = cmp.Or(limit, DefaultReplayLimit)
	oldest := h.oldest()
	s.work = h.news(s)
	missed := 0
	owed := s.work[:0:0]
	for _, ch := range s.work {
		if hasReset(s.opening.resets, s.item(ch)) {
			s.skip(ch, head)
			continue
		}
		if from := ch.kept(h.options.HistoryCount, oldest).from; from > s.position {
			s.skip(ch, from) // only for one who begins with the earliest
		}
		missed += ch.countAfter(s.after(ch))
		owed = append(owed, ch)
	}
	if limit > 0 && missed > limit && s.missedMore(owed, limit) {
		for _, ch := range s.work {
			if item := s.item(ch); ch.last > s.after(ch) && !hasReset(s.opening.resets, item) {
				s.opening.resets = append(s.opening.resets, Reset{item, ResetLimit})
			}
		}
		for _, ch := range s.work {
			if hasReset(s.opening.resets, s.item(ch)) {
				s.skip(ch, head)
			}
		}
	}
	if len(s.opening.resets) == len(s.cover) {
		s.advance(head)
	}
}

// missedMore reports whether the subscriber missed more than that many events
// on the channels. One on several of them counts once.
func (s *Subscriber) missedMore(channels []*channel, limit int) bool {
	missed := make(map[uint64]struct{})
	for _, ch := range channels {
		r, i, _ := ch.history.after(s.after(ch))
		for i < len(r.entries) {
			missed[r.entries[i].seq] = struct{}{}
			if len(missed) > limit {
				return true
			}
			if i++; i == len(r.entries) {
				r, i, _ = ch.history.after(r.entries[i-1].seq)
			}
		}
	}
	return false
}

// oldest returns the time before which events are not kept.
func (h *Hub) oldest() int64 {
	return time.Now().Add(-h.options.HistoryAge).UnixNano()
}

// news returns the subscriber's channels that had events after its position.
func (h *Hub) news(s *Subscriber) []*channel {
	var found []*channel
	if !slices.ContainsFunc(s.cover, isPattern) {
		for _, name := range s.cover {
			if ch := h.index.channels[name]; ch.last > s.position {
				found = append(found, ch)
			}
		}
		return found
	}
	var e *list.Element
	for e = h.recent.Front(); e != nil; e = e.Next() {
		ch := e.Value.(*channel)
		if ch.last <= s.position {
			break // as all that follow
		}
		if s.item(ch) != "" {
			found = append(found, ch)
		}
	}
	return found
}

// item returns the name or pattern by which the subscriber gets a channel,
// empty if it does not.
func (s *Subscriber) item(ch *channel) string {
	for _, item := range s.cover {
		if Covers(item, ch.name) {
			return item
		}
	}
	return ""
}

func isPattern(s string) bool { return strings.HasSuffix(s, "*") }

func hasReset(resets []Reset, item string) bool {
	return slices.ContainsFunc(resets, func(r Reset) bool { return r.Channel == item })
}

func addReset(resets []Reset, item string, reason ResetReason) []Reset {
	if hasReset(resets, item) {
		return resets
	}
	return append(resets, Reset{item, reason})
}

func (h *Hub) countResets(resets []Reset) {
	for _, r := range resets {
		h.stats.resets.add(resetReasons, r.Reason)
	}
}
