package sse

import (
	"slices"
	"strings"
)

// enter puts the subscriber into the index under names and patterns. What was
// published up to the floor is not for it.
func (h *Hub) enter(s *Subscriber, items []string, floor uint64) {
	s.memberships = slices.Grow(s.memberships, len(items))
	for _, name := range items {
		if prefix, isPattern := strings.CutSuffix(name, "*"); isPattern {
			h.index.pattern(prefix, h.forgotten).add(s)
		} else {
			ch := h.channel(name)
			h.revive(ch)
			ch.add(s)
		}
		s.memberships[len(s.memberships)-1].floor = floor
	}
}

// exit takes the subscriber out of the index. Taking one of its memberships away
// can move another subscriber's place, never this one's.
func (h *Hub) exit(memberships []membership) {
	for _, m := range memberships {
		m.topic.remove(m.slot)
		if len(m.topic.subscribers) > 0 {
			continue
		}
		if prefix, isPattern := strings.CutSuffix(m.topic.name, "*"); isPattern {
			h.index.dropPattern(prefix)
		} else {
			h.retire(h.index.channels[m.topic.name])
		}
	}
}
