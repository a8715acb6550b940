package ssetest

import (
	"maps"
	"math"
	"slices"
	"sort"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A claim is what the subscriber is owed of a channel: all events behind start
// but for those in the holes.
type claim struct {
	line  *line
	start uint32
	holes []*hole
}

// A hole is where events may be missing: behind after, and before next. Where
// it ends is told only if everything is reset, and must be concluded otherwise:
// before the first event that follows it, and before those whose publish began
// when the hole had been announced.
type hole struct {
	after, next uint32
	resets      []sse.Reset // none for what was never promised
}

const noSeq = math.MaxUint32

func (h *hole) has(seq uint32) bool { return h.after < seq && seq < h.next }

// endBefore ends the hole before what was published when it had been announced.
func (h *hole) endBefore(cl *claim, announced int64) {
	i := sort.Search(len(cl.line.seqs), func(i int) bool { return cl.line.begun[i] > announced })
	if i < len(cl.line.seqs) {
		h.next = min(h.next, cl.line.seqs[i])
	}
}

// endHoles ends the hole by which an event on these channels might have been
// missing, but was not. Which one it is must be beyond doubt.
func (s *spanCheck) endHoles(names []string, seq uint32) {
	var only *hole
	for _, name := range names {
		cl := s.claims[name]
		if cl == nil {
			continue
		}
		if len(cl.holes) == 0 {
			return
		}
		newest := cl.holes[len(cl.holes)-1]
		if only != nil && newest != only {
			return
		}
		only = newest
	}
	if only != nil && only.has(seq) {
		only.next = seq
	}
}

// compare finds what is owed and did not come. A connection owes what is up to
// the place at which it left its client, of a channel that ended all, and as
// the last of a subscriber that has caught up, what is up to there.
func (s *spanCheck) compare() {
	caughtUp := s.final && s.subscriber.hasThrough && s.subscriber.through.epoch == s.epoch
	through := s.cursor
	if caughtUp {
		through = max(through, s.subscriber.through.seq)
	}
	reported := make(map[uint32]bool)
	for _, name := range slices.Sorted(maps.Keys(s.claims)) {
		limit := through
		if s.ended[name] {
			limit = noSeq
		}
		if s.subscriber.withdraws(name) {
			limit = s.reached[name]
		}
		s.compareChannel(name, limit, reported)
		if s.options.KeepsAll {
			s.compareEnd(name, through, caughtUp)
		}
	}
}

// compareEnd finds that a subscriber was not told that a channel ended. One who
// named it is told on each connection, but may have left this one before. One
// with a pattern is told when the connection passes the end, and again if it
// begins with the event that was the end.
func (s *spanCheck) compareEnd(name string, through uint32, caughtUp bool) {
	cl := s.claims[name]
	ended := cl.line.ended
	if ended == 0 || ended > through || s.ended[name] {
		return
	}
	_, presented := s.sinceHere(s.HistoryConnection)
	owed := caughtUp
	if !slices.Contains(s.cover, name) {
		behind := ended > cl.start || (presented && ended == cl.start)
		owed = behind && (caughtUp || ended < through)
	}
	if owed {
		s.wrong(Lost, s.last, "channel %s ended at %s, and the subscriber was not told", name, s.at(ended))
	}
}

func (s *spanCheck) compareChannel(name string, limit uint32, reported map[uint32]bool) {
	cl := s.claims[name]
	got := s.got
	for _, seq := range cl.line.seqs[cl.line.after(cl.start):] {
		if seq > limit {
			return
		}
		i, came := slices.BinarySearch(got, seq)
		got = got[i:]
		if came || reported[seq] || slices.ContainsFunc(cl.holes, func(h *hole) bool { return h.has(seq) }) {
			continue
		}
		reported[seq] = true
		number := s.numbers[seq]
		kind := Missing
		if s.published[number].acked {
			kind = Lost
		}
		index := s.first + slices.IndexFunc(s.sightings(), func(at sighting) bool { return at.seq > seq })
		if index < s.first {
			index = s.last
		}
		s.wrong(kind, index, "%s at %s did not come on %s", s.describe(number), s.at(seq), name)
	}
}

// countNeedless counts the resets of what is not known to miss anything.
func (s *spanCheck) countNeedless() {
	for _, h := range s.holes {
		for _, r := range h.resets {
			if r.Reason != sse.ResetExpired && r.Reason != sse.ResetLimit {
				continue
			}
			if !s.missesAny(h, r.Channel) {
				s.report.Needless++
			}
		}
	}
}

func (s *spanCheck) missesAny(h *hole, item string) bool {
	for name, cl := range s.claims {
		i := cl.line.after(h.after)
		if sse.Covers(item, name) && i < len(cl.line.seqs) && h.has(cl.line.seqs[i]) {
			return true
		}
	}
	return false
}
