package ssetest

import (
	"slices"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A withdrawal is a part of what a subscriber asked for that was taken away.
type withdrawal struct {
	item string
	done int64 // after the server had answered
}

// Withdrawn notes that the server has answered that the subscriber no longer
// gets a name or pattern: whatever is published from now on must not come to it
// by that. What it asked for otherwise it still gets. It may be called while the
// subscriber's connections are noted.
func (s *HistorySubscriber) Withdrawn(items ...string) {
	h := s.history
	now := h.now()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, item := range items {
		s.withdrawn = append(s.withdrawn, withdrawal{item, now})
	}
}

// withdrawnBefore reports whether all by which the subscriber would get an event
// on a channel had been withdrawn when the event's publish began.
func (s *HistorySubscriber) withdrawnBefore(name string, begin int64) bool {
	for _, item := range s.asked {
		if sse.Covers(item, name) && !slices.ContainsFunc(s.withdrawn, func(w withdrawal) bool { return w.item == item && w.done < begin }) {
			return false
		}
	}
	return true
}

// withdraws reports whether any of that was withdrawn, ever.
func (s *HistorySubscriber) withdraws(name string) bool {
	return slices.ContainsFunc(s.withdrawn, func(w withdrawal) bool { return sse.Covers(w.item, name) })
}

// checkGranted checks that the subscriber might have an event, and notes how far
// it came on channels that were withdrawn at some time: more of them it is not
// owed, but nothing in between may be missing.
func (s *spanCheck) checkGranted(at sighting, index int, names []string) {
	begin := s.published[at.number].begin
	granted := func(name string) bool { return s.covers(name) && !s.subscriber.withdrawnBefore(name, begin) }
	if slices.ContainsFunc(names, s.covers) && !slices.ContainsFunc(names, granted) {
		s.wrong(NotGranted, index, "%s at %s was published when this had been withdrawn", s.describe(at.number), s.at(at.seq))
	}
	kept := func(name string) bool { return s.covers(name) && !s.subscriber.withdraws(name) }
	if slices.ContainsFunc(names, kept) {
		return // by which it may have come
	}
	for _, name := range names {
		s.reached[name] = at.seq
	}
}
