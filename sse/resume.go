package sse

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"time"
)

// begin makes a subscriber that has just joined begin where it wants to, and
// decides what its first frame says of that. What memory has is replayed from
// memory; only for what it has not, the record is asked.
//
// The caller holds the hub's lock, which is released while the record is asked.
func (h *Hub) begin(ctx context.Context, s *Subscriber, start Start) error {
	if lacking := h.place(s, start); len(lacking) > 0 {
		unknown := s.unknown()
		kept, err := h.countUnlocked(ctx, s, lacking)
		if err != nil && !errors.Is(err, ErrGone) {
			return err
		}
		h.placeBehind(s, unknown, kept, err)
	}
	if s.opening.resume == ResumeComplete && !s.behind {
		h.replay(s)
	}
	if len(s.opening.resets) > 0 {
		s.opening.resume = ResumeReset
		h.countResets(s.opening.resets)
	}
	s.work = slices.DeleteFunc(s.work, func(ch *channel) bool { return ch.last <= s.after(ch) })
	s.earliest = s.earliest && s.behind
	h.beginEnds(s)
	if s.over && len(s.opening.resets) == 0 && len(s.work) == 0 && !s.behind {
		return ErrEnded
	}
	return nil
}

// countUnlocked asks the record without the hub's lock, which must never be
// held while the broker is called. The subscriber has joined, so that it misses
// nothing meanwhile.
func (h *Hub) countUnlocked(ctx context.Context, s *Subscriber, items []string) (int, error) {
	h.mu.Unlock()
	defer h.mu.Lock()
	return s.countKept(ctx, items)
}

// place puts the subscriber at its position, and returns the names and patterns
// of which memory does not have all that the subscriber needs.
func (h *Hub) place(s *Subscriber, start Start) (lacking []string) {
	head := h.head.Load()
	s.position, s.opened = head, head
	s.opening.resume = ResumeComplete
	switch {
	case start.kind == startLatest:
		s.opening.resume = ResumeFresh
	case start.kind == startEarliest:
		s.position, s.earliest = 0, true
		return h.lackHistory(s)
	case start.kind == startUnknown, start.after.Epoch == h.epoch && start.after.Seq > head:
		s.resetAll(ResetUnknown)
	case start.after.Epoch != h.epoch:
		s.resetAll(ResetEpoch)
	default:
		s.position = start.after.Seq
		if len(h.gaps(s, h.keptFrom())) > 0 {
			return s.cover
		}
	}
	return nil
}

// placeBehind goes on where memory was not enough, with what the record says:
// how many events it keeps of those that are missing, or that it does not. What
// was unknown to memory is from before it was asked.
func (h *Hub) placeBehind(s *Subscriber, unknown []uint64, kept int, err error) {
	switch {
	case err != nil && !s.earliest:
		s.opening.resets = h.gaps(s, h.keptFrom())
	case err == nil && kept > int(s.replayLimit):
		s.opening.resets = h.limitResets(s)
		h.giveUp(s, s.opening.resets)
	case err == nil && kept > 0:
		s.behind = len(h.gaps(s, evictedFrom)) > 0
		s.checked = true
		s.work = h.news(s)
	default: // what memory did not know of never was, or is gone for everybody
		for i := range s.memberships {
			s.memberships[i].floor = unknown[i]
		}
	}
}

// unknown returns, for each name and pattern, the newest seq of which memory
// does not know whether it was an event there.
func (s *Subscriber) unknown() []uint64 {
	seqs := make([]uint64, len(s.memberships))
	for i, m := range s.memberships {
		seqs[i] = m.topic.forgotten
	}
	return seqs
}

// lackHistory returns the names and patterns of which the record may keep more
// than memory does, and more than what the hub's settings keep for replay. The
// others begin where these settings say.
func (h *Hub) lackHistory(s *Subscriber) (lacking []string) {
	from, oldest := h.keptFrom(), h.oldest()
	for _, m := range s.memberships {
		item := m.topic.name
		ch := h.index.channels[item] // nil for a pattern
		switch {
		case ch != nil && ch.whole(h.options.HistoryCount, oldest, ch.forgotten):
			if seq := from(ch); seq > 0 {
				s.skip(ch, seq)
			}
		case ch != nil, m.topic.forgotten > 0, h.evictedAny(item):
			lacking = append(lacking, item)
		}
	}
	return lacking
}

// evictedAny reports whether memory does not have all events of the channels
// that a pattern stands for.
func (h *Hub) evictedAny(pattern string) bool {
	for e := h.recent.Front(); e != nil; e = e.Next() {
		ch := e.Value.(*channel)
		if Covers(pattern, ch.name) && evictedFrom(ch) > 0 {
			return true
		}
	}
	return false
}

// resetAll resets everything that the subscriber asked for.
func (s *Subscriber) resetAll(reason ResetReason) {
	for _, name := range s.cover {
		s.opening.resets = append(s.opening.resets, Reset{name, reason})
	}
}

// keptFrom returns a function that tells behind which seq a channel's events
// are kept by the hub's settings.
func (h *Hub) keptFrom() func(*channel) uint64 {
	oldest := h.oldest()
	return func(ch *channel) uint64 { return ch.kept(h.options.HistoryCount, oldest).from }
}

// evictedFrom tells behind which seq a channel's events are in memory.
func evictedFrom(ch *channel) uint64 {
	ch.history.mu.Lock()
	defer ch.history.mu.Unlock()
	return ch.history.evicted
}

// gaps returns a reset for each name and pattern of which memory lacks events
// behind the subscriber's position, where a function tells from which seq on it
// has a channel's.
func (h *Hub) gaps(s *Subscriber, from func(*channel) uint64) []Reset {
	var resets []Reset
	for _, ch := range h.news(s) {
		if from(ch) > s.after(ch) {
			resets = addReset(resets, s.item(ch), ResetExpired)
		}
	}
	for _, ch := range s.work { // some of which may have been forgotten since
		if h.index.channels[ch.name] != ch && evictedFrom(ch) > s.after(ch) && s.item(ch) != "" {
			resets = addReset(resets, s.item(ch), ResetExpired)
		}
	}
	for _, m := range s.memberships {
		if m.topic.forgotten > max(s.position, m.floor) {
			resets = addReset(resets, m.topic.name, ResetExpired)
		}
	}
	return resets
}

// limitResets returns a reset for each name and pattern that has news.
func (h *Hub) limitResets(s *Subscriber) []Reset {
	var resets []Reset
	for _, ch := range h.news(s) {
		if ch.last > s.after(ch) {
			resets = addReset(resets, s.item(ch), ResetLimit)
		}
	}
	for _, m := range s.memberships { // of which memory knows nothing
		if m.topic.forgotten > max(s.position, m.floor) {
			resets = addReset(resets, m.topic.name, ResetLimit)
		}
	}
	return resets
}

// giveUp makes the subscriber continue at the head on everything that is reset,
// since what follows a hole would only confuse a client that is about to fetch
// the state anew.
func (h *Hub) giveUp(s *Subscriber, resets []Reset) {
	head := h.head.Load()
	for _, ch := range h.news(s) {
		if hasReset(resets, s.item(ch)) {
			s.skip(ch, head)
		}
	}
	for i := range s.memberships {
		if hasReset(resets, s.memberships[i].topic.name) {
			s.memberships[i].floor = head
		}
	}
	if len(resets) > 0 && s.isWhole(resets) {
		s.advance(max(s.position, s.bound(head)))
	}
}

// isWhole reports whether the resets are of all that the subscriber gets. They may
// also be of what it is about to get.
func (s *Subscriber) isWhole(resets []Reset) bool {
	return !slices.ContainsFunc(s.cover, func(item string) bool {
		return !slices.ContainsFunc(resets, func(r Reset) bool { return Covers(r.Channel, item) })
	})
}

// replay gives the subscriber what its channels keep in memory behind its
// position, except for those that are reset.
func (h *Hub) replay(s *Subscriber) {
	from := h.keptFrom()
	h.giveUp(s, s.opening.resets)
	s.work = h.news(s)
	missed := 0
	owed := s.work[:0:0]
	for _, ch := range s.work {
		if hasReset(s.opening.resets, s.item(ch)) {
			continue
		}
		if seq := from(ch); s.earliest && seq > s.after(ch) {
			s.skip(ch, seq)
		}
		missed += ch.countAfter(s.after(ch))
		owed = append(owed, ch)
	}
	if missed > int(s.replayLimit) && s.missedMore(owed) {
		for _, ch := range owed {
			if ch.last > s.after(ch) {
				s.opening.resets = addReset(s.opening.resets, s.item(ch), ResetLimit)
			}
		}
		h.giveUp(s, s.opening.resets)
	}
	if s.earliest && len(s.work) == 0 {
		s.advance(h.head.Load()) // there is nothing that it could be behind of
	}
}

// missedMore reports whether the subscriber missed more events on the channels
// than one replay may hold. One on several of them counts once.
func (s *Subscriber) missedMore(channels []*channel) bool {
	missed := make(map[uint64]struct{})
	for _, ch := range channels {
		r, i, _ := ch.history.after(s.after(ch))
		for i < len(r.entries) {
			missed[r.entries[i].seq] = struct{}{}
			if len(missed) > int(s.replayLimit) {
				return true
			}
			if i++; i == len(r.entries) {
				r, i, _ = ch.history.after(r.entries[i-1].seq)
			}
		}
	}
	return false
}

// replayLimit returns the limit of a replay that is configured.
func replayLimit(configured int) int32 {
	if configured < 0 {
		return math.MaxInt32 // more than any record holds
	}
	return int32(min(cmp.Or(configured, DefaultReplayLimit), math.MaxInt32))
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
			if ch := h.index.channels[name]; ch != nil && ch.last > s.position {
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
	return s.itemOf(ch.name)
}

func (s *Subscriber) itemOf(name string) string {
	if coveredBy(s.except, name) {
		return ""
	}
	for _, item := range s.cover {
		if Covers(item, name) {
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
