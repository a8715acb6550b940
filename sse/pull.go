package sse

import (
	"container/heap"
	"slices"
	"sync"
	"time"
)

// A batch that is put together from several channels carries about batchBytes,
// or wideBytes if there are more than wideChannels: to begin a merge costs
// something for each of them, and must be worth it.
const (
	batchBytes   = 32 << 10
	wideBytes    = 256 << 10
	wideChannels = 64
)

// A batch is what a subscriber is to be sent next.
type batch struct {
	// bytes are whole frames. They are shared with all other subscribers,
	// or belong to scratch: in both cases to be read until release.
	bytes  []byte
	sent   int // of the bytes
	events int
	// closing is set when the stream is to end; the batch holds nothing.
	closing CloseReason
	// behind is set when the batch is to be had from pullBehind, which may
	// block.
	behind bool
	// again is set when there may be more even if the batch is empty.
	again bool
	// complete is set when nothing is left behind the batch: the subscriber
	// will be woken.
	complete bool
	scratch  *[]byte
}

// release gives back what the batch borrowed.
func (b *batch) release() {
	if b.scratch == nil {
		return
	}
	if cap(b.bytes) <= 2*wideBytes { // do not hold on to the largest event there ever was
		*b.scratch = b.bytes[:0]
		scratches.Put(b.scratch)
	}
	b.bytes, b.scratch = nil, nil
}

var scratches = sync.Pool{New: func() any { return new(make([]byte, 0, batchBytes)) }}

// pull returns what the subscriber is to be sent next, and moves its position
// behind it. An empty batch means that it has everything and will be woken.
// Only the subscriber's engine calls it, never concurrently.
func (s *Subscriber) pull() batch {
	head, end, closing := s.look()
	if closing != "" {
		return batch{closing: closing}
	}
	if end > s.told {
		s.findEnds()
	}
	if len(s.backfills) > 0 {
		return s.pullBackfill()
	}
	if !s.changeDue() {
		if b := s.pullTo(s.bound(head)); b.some() {
			if b.complete = b.complete && !s.over && len(s.ends)+len(s.changes) == 0; b.complete {
				s.tidy()
			}
			return b
		}
	}
	if len(s.changes) > 0 {
		return s.makeChange()
	}
	if s.over && len(s.ends) == 0 {
		return batch{closing: CloseEnded}
	}
	s.tidy()
	return batch{}
}

// pullTo returns what comes next, up to a seq.
func (s *Subscriber) pullTo(limit uint64) batch {
	if len(s.ends) > 0 && s.ends[0].Seq <= limit {
		return s.pullUntilEnd()
	}
	return s.pullEvents(limit)
}

// some reports whether there is anything to do about the batch.
func (b *batch) some() bool {
	return len(b.bytes) > 0 || b.behind || b.again || b.closing != ""
}

func (s *Subscriber) pullEvents(head uint64) batch {
	switch {
	case s.behind:
		return batch{behind: true}
	case len(s.work) > 1:
		return s.pullMany(head)
	}
	return s.pullRest(head)
}

// pullRest reads the only channel that is left, if any. What it returns is a
// part of the history.
func (s *Subscriber) pullRest(head uint64) batch {
	if len(s.work) == 0 {
		return batch{}
	}
	ch := s.work[0]
	r, first, hole := ch.history.after(s.after(ch))
	switch {
	case hole:
		return s.fallBehind()
	case s.tooFar(r.behind(first)):
		return s.skipAhead()
	}
	end := r.search(head)
	if first >= end {
		s.work = s.work[:0]
		return batch{}
	}
	s.advance(r.entries[end-1].seq)
	b := batch{bytes: r.frames[r.start(first):r.entries[end-1].end], events: end - first}
	if end == len(r.entries) && r.newest {
		s.work = s.work[:0]
		b.complete = true
	}
	return b
}

// look takes over what the subscriber was told to have news. The head is read
// under the same lock: an event up to it that the subscriber was not told of
// yet can only be the newest, so what is read of its other channels up to the
// head comes before it, and nothing is passed over.
func (s *Subscriber) look() (head, end uint64, closing CloseReason) {
	s.mu.Lock()
	head = s.hub.head.Load()
	s.pending = false
	lost := s.lost
	s.lost = false
	if len(s.work) == 0 {
		s.work, s.dirty = s.dirty, s.work
	} else {
		s.work = append(s.work, s.dirty...)
	}
	clear(s.dirty)
	s.dirty = s.dirty[:0]
	closing, end = s.later.why(), s.later.newestEnd()
	var queued []*change
	if later := s.later; later != nil {
		queued, later.queued = later.queued, nil
		if later.retry > 0 {
			s.retry, s.untold, later.retry = toMillis(later.retry), true, 0
		}
		if closing == "" && !later.expires.IsZero() && !time.Now().Before(later.expires) {
			closing = CloseExpired // the timer may come a little late
		}
		if later.isEmpty() {
			s.later = nil
		}
	}
	s.mu.Unlock()
	if len(queued)+len(s.changes) > 0 {
		s.takeChanges(queued)
	}

	if lost && !s.behind {
		s.hub.mu.Lock()
		s.work = s.hub.news(s)
		if s.hub.forgot(s) {
			s.fallBehind() // there may have been more channels
		}
		s.hub.mu.Unlock()
	}
	return head, end, closing
}

// forgot reports whether there may have been events for the subscriber on channels
// of which nothing is known any more.
func (h *Hub) forgot(s *Subscriber) bool {
	return slices.ContainsFunc(s.memberships, func(m membership) bool {
		return m.topic.forgotten > max(s.position, m.floor)
	})
}

// pullMany merges several channels in the order of the record.
func (s *Subscriber) pullMany(head uint64) batch {
	cursors, hole := s.cursors(head)
	switch {
	case hole:
		return s.fallBehind()
	case s.tooFar(cursors.behind()):
		return s.skipAhead()
	case len(cursors) < 2:
		s.keepWork(cursors)
		return s.pullRest(head)
	}
	most := batchBytes
	if len(cursors) > wideChannels {
		most = wideBytes
	}
	b := batch{scratch: scratches.Get().(*[]byte)}
	b.bytes = *b.scratch
	position := s.position
	for len(cursors) > 0 {
		c := cursors[0]
		if seq := c.seq(); seq > position {
			frame := c.run.frame(c.next)
			if len(b.bytes) > 0 && len(b.bytes)+len(frame) > most {
				break
			}
			b.bytes = append(b.bytes, frame...)
			b.events++
			position = seq
		} // else it is on a channel that was read already
		if c.step(); c.hole {
			break // found again, and told, by the next pull
		}
		if c.ready(head) {
			heap.Fix(&cursors, 0)
		} else {
			heap.Pop(&cursors)
		}
	}
	s.advance(position)
	s.keepWork(cursors)
	return b
}

// cursors returns one for each channel of the work that has something up to
// the head, as a heap.
func (s *Subscriber) cursors(head uint64) (found cursors, hole bool) {
	s.work = distinct(s.work)
	for _, ch := range s.work {
		c := cursor{channel: ch}
		if c.run, c.next, c.hole = ch.history.after(s.after(ch)); c.hole {
			return nil, true
		}
		if c.ready(head) {
			found = append(found, &c)
		}
	}
	heap.Init(&found)
	return found, false
}

// distinct returns the channels, each once. It may reuse the argument's memory.
func distinct(channels []*channel) []*channel {
	once := channels[:0]
	var seen map[*channel]struct{} // for lists that are too long to look through
	if len(channels) > maxDirty {
		seen = make(map[*channel]struct{}, len(channels))
	}
	for _, ch := range channels {
		_, again := seen[ch]
		if again || (seen == nil && slices.Contains(once, ch)) {
			continue
		}
		if seen != nil {
			seen[ch] = struct{}{}
		}
		once = append(once, ch)
	}
	return once
}

// keepWork makes the channels of the cursors all that is left to do.
func (s *Subscriber) keepWork(left cursors) {
	clear(s.work)
	s.work = s.work[:0]
	if cap(s.work) > 4*maxDirty && len(left) <= maxDirty {
		s.work = nil // do not hold on to the longest list there ever was
	}
	for _, c := range left {
		s.work = append(s.work, c.channel)
	}
}

// settle moves the position to the head if nothing is pending, and returns
// whether it moved: the client's cursor may follow.
func (s *Subscriber) settle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	settled := s.hub.settled.Load()
	if len(s.changes)+len(s.backfills) > 0 || (s.later != nil && len(s.later.queued) > 0) {
		return false
	}
	if len(s.work) > 0 || len(s.dirty) > 0 || s.lost || s.later.newestEnd() > s.told || len(s.ends) > 0 || s.behind || settled <= s.position {
		return false
	}
	s.advance(settled)
	return true
}

// A cursor reads one channel in a merge.
type cursor struct {
	channel *channel
	run     run
	next    int
	hole    bool
}

func (c *cursor) seq() uint64 { return c.run.entries[c.next].seq }

func (c *cursor) ready(head uint64) bool {
	return c.next < len(c.run.entries) && c.seq() <= head
}

// step moves to the next entry, in the next run where this one ends.
func (c *cursor) step() {
	if c.next++; c.next == len(c.run.entries) {
		last := c.run.entries[c.next-1].seq
		c.run, c.next, c.hole = c.channel.history.after(last)
	}
}

type cursors []*cursor

// behind returns the bytes of all that the channels have from there on.
func (c cursors) behind() (bytes int64) {
	for _, cursor := range c {
		bytes += cursor.run.behind(cursor.next)
	}
	return bytes
}

func (c cursors) Len() int           { return len(c) }
func (c cursors) Less(i, j int) bool { return c[i].seq() < c[j].seq() }
func (c cursors) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }
func (c *cursors) Push(x any)        { *c = append(*c, x.(*cursor)) }
func (c *cursors) Pop() any {
	old := *c
	last := old[len(old)-1]
	*c = old[:len(old)-1]
	return last
}
