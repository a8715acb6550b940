package sse

import (
	"cmp"
	"context"
	"errors"
	"math"
)

const (
	// behindBytes is about how much is read from the record at a time.
	behindBytes = 128 << 10
	// maxReads is how many subscribers read the record at one time. The
	// others wait: the record may be on a disk or another machine.
	maxReads = 4
)

// A subscriber is behind while memory no longer has what comes next for it. It
// is then sent pages of the record, one at a time as its client reads them,
// until it comes to where memory begins. From there on it goes on from memory.
// As its position is all that it has, there is no seam at which something could
// be passed over or come twice.

// fallBehind makes the subscriber read on from the record, if that has what
// memory has not.
func (s *Subscriber) fallBehind() batch {
	s.behind, s.checked = true, false
	return batch{behind: true}
}

// pullBehind does for a subscriber that is behind what pull does for others. It
// may block, for as long as the broker does.
func (s *Subscriber) pullBehind(ctx context.Context) batch {
	if len(s.backfills) > 0 {
		return s.backfillBehind(ctx)
	}
	if s.lagsBehind() {
		return s.skipAhead()
	}
	if !s.checked {
		kept, err := s.countKept(ctx, s.cover)
		if err == nil && kept > int(s.replayLimit) {
			return s.resetBehind(s.hub.limitResets)
		}
		if err != nil {
			return s.failBehind(ctx, err)
		}
		s.checked = true
	}
	page, err := s.readPage(ctx)
	if err != nil {
		return s.failBehind(ctx, err)
	}
	b := s.encodePage(page)
	s.catchUp()
	return b
}

// failBehind handles an error of the record: what is gone is reset; from one
// that cannot be read now, the client is sent away for a while.
func (s *Subscriber) failBehind(ctx context.Context, err error) batch {
	switch {
	case ctx.Err() != nil:
		return batch{closing: cmp.Or(s.main().closed(), CloseClient)}
	case !errors.Is(err, ErrGone):
		return batch{closing: cmp.Or(s.main().closed(), CloseBusy)}
	}
	return s.resetBehind(func(s *Subscriber) []Reset { return s.hub.gaps(s, evictedFrom) })
}

// resetBehind gives up what is missing, tells the client, and goes on from
// memory; or it ends the stream, so that its client comes back for what there is.
func (s *Subscriber) resetBehind(missing func(*Subscriber) []Reset) batch {
	h := s.hub
	h.mu.Lock()
	resets := missing(s)
	if len(resets) > 0 && s.disconnects() {
		h.mu.Unlock()
		return batch{closing: CloseSlow}
	}
	h.giveUp(s, resets)
	s.goOn()
	h.mu.Unlock()
	if len(resets) == 0 {
		return batch{again: true}
	}
	h.countResets(resets)
	return batch{bytes: s.resetFrame(resets)}
}

// catchUp makes the subscriber go on from memory if that has what comes next.
func (s *Subscriber) catchUp() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	if len(s.hub.gaps(s, evictedFrom)) == 0 {
		s.goOn()
	}
}

// goOn ends being behind.
func (s *Subscriber) goOn() {
	s.behind, s.earliest = false, false
	s.work = s.hub.news(s)
}

// countKept returns how many events the record keeps behind the subscriber's
// position, counted up to one more than a replay may hold.
func (s *Subscriber) countKept(ctx context.Context, channels []string) (int, error) {
	leave, err := s.hub.enterRecord(ctx)
	if err != nil {
		return 0, err
	}
	defer leave()
	limit := int(s.replayLimit)
	if limit < math.MaxInt32 {
		limit++
	}
	n, err := s.hub.broker.Count(ctx, s.recordPosition(), channels, limit)
	return n, s.hub.goneOrBehind(ctx, err)
}

func (s *Subscriber) readPage(ctx context.Context) (Page, error) {
	leave, err := s.hub.enterRecord(ctx)
	if err != nil {
		return Page{}, err
	}
	defer leave()
	page, err := s.hub.broker.Read(ctx, s.recordPosition(), s.cover, behindBytes)
	if err == nil && page.Through.Epoch != s.hub.epoch {
		return Page{}, errBehind // of the oldest that is kept, in a record that has begun anew
	}
	return page, s.hub.goneOrBehind(ctx, err)
}

// recordPosition returns where the subscriber reads the record.
func (s *Subscriber) recordPosition() Position {
	if s.earliest {
		return Position{} // before the oldest that is kept
	}
	return s.at()
}

// enterRecord waits for a place among those who read the record.
func (h *Hub) enterRecord(ctx context.Context) (leave func(), err error) {
	select {
	case h.reads <- struct{}{}:
		return func() { <-h.reads }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-h.closed.Done():
		return nil, ErrClosed
	}
}

// encodePage makes a batch of a page, and moves the position behind it, and the
// client's cursor too: a page may end with much that is not for this client,
// and a keepalive moves the cursor only from where the position is. What the hub
// has not told everybody of is left to memory: no position may run ahead of the
// hub's, nor of an end of a channel that came while the page was read.
func (s *Subscriber) encodePage(page Page) batch {
	head := s.hub.settled.Load() // before what happened meanwhile is looked for
	if _, _, closing := s.main().look(); closing != "" {
		return batch{closing: closing}
	}
	head = s.bound(head)
	s.lookForEnds()
	sent := s.position // what the client presents if its connection breaks now
	b := batch{again: true, scratch: scratches.Get().(*[]byte)}
	b.bytes = *b.scratch
	for i := range page.Entries {
		e := &page.Entries[i]
		if e.Position.Seq > head {
			break
		}
		b.bytes = s.appendEnds(b.bytes, e.Position.Seq-1)
		if e.Event.End != EndOnly && s.wants(e) {
			b.bytes = AppendEvent(b.bytes, e.Position, &e.Event)
			b.events++
			sent = e.Position.Seq
		}
	}
	through := max(s.position, min(page.Through.Seq, head))
	b.bytes = s.appendEnds(b.bytes, through)
	if s.advance(through); through > sent {
		b.bytes = s.appendCursor(b.bytes)
	}
	s.earliest = false
	return b
}

// wants reports whether the entry is behind the place at which the subscriber
// continues on any of its channels.
func (s *Subscriber) wants(e *Entry) bool {
	if len(s.floors) == 0 && !s.narrowed {
		return true
	}
	for _, name := range e.Event.Channels {
		if s.itemOf(name) != "" && s.floorOf(name) < e.Position.Seq {
			return true
		}
	}
	return false
}

// floorOf returns the seq behind which the subscriber continues on a channel.
func (s *Subscriber) floorOf(name string) uint64 {
	for ch, floor := range s.floors {
		if ch.name == name {
			return floor
		}
	}
	return 0
}
