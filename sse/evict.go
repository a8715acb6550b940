package sse

import "time"

// channelCost is about what a channel costs besides its name and segments, in
// bytes.
const channelCost = 512

// idleShare is the part of the memory budget that may go to channels of which
// nothing is kept but the knowledge that they had events.
const idleShare = 16

func (ch *channel) cost() int64 { return channelCost + int64(len(ch.name)) }

// evict keeps the hub within its memory budget. What was published last is not
// evicted by its own arrival.
func (h *Hub) evict() {
	for h.size > h.options.Memory && h.segments.Len() > 0 {
		oldest := h.segments.Front().Value.(*segment)
		if oldest.last().seq == h.head.Load() {
			break
		}
		h.dropOldest(oldest.channel)
	}
	for h.idle.Len() > 0 && h.idleSize > h.options.Memory/idleShare {
		h.forget(h.idle.Front().Value.(*channel))
	}
}

// trim evicts what a channel holds beyond the configured count.
func (h *Hub) trim(ch *channel, now time.Time) {
	for ch.surplus(h.options.HistoryCount, now.UnixNano()) {
		h.dropOldest(ch)
	}
}

// dropOldest evicts the oldest segment of a channel.
func (h *Hub) dropOldest(ch *channel) {
	seg := ch.history.dropOldest()
	h.segments.Remove(seg.order)
	h.size -= int64(seg.size)
	h.retire(ch)
}

// retire puts a channel aside that nobody needs now. If it had events, the hub
// goes on to know that they are gone, and tells whoever asks for them.
func (h *Hub) retire(ch *channel) {
	if len(ch.segments) > 0 || len(ch.subscribers) > 0 || ch.idle != nil {
		return
	}
	if ch.recent == nil {
		delete(h.index.channels, ch.name)
		return
	}
	ch.idle = h.idle.PushBack(ch)
	h.idleSize += ch.cost()
}

// revive takes back a channel that was put aside.
func (h *Hub) revive(ch *channel) {
	if ch.idle != nil {
		h.idle.Remove(ch.idle)
		ch.idle = nil
		h.idleSize -= ch.cost()
	}
}

// forget drops the last that is known of an idle channel. From then on the hub
// assumes the worst of any channel that it does not know: that it had events
// as late as the newest one forgotten.
func (h *Hub) forget(ch *channel) {
	h.forgotten = max(h.forgotten, ch.last)
	for _, t := range h.index.matches(ch) {
		t.forgotten = max(t.forgotten, ch.last)
	}
	h.revive(ch)
	h.size -= ch.cost()
	h.recent.Remove(ch.recent)
	delete(h.index.channels, ch.name)
}

// sweep evicts, from time to time, what has grown too old.
func (h *Hub) sweep() {
	for {
		h.mu.Lock()
		pause := min(max(h.options.HistoryAge/8, time.Second), time.Minute)
		h.mu.Unlock()
		select {
		case <-time.After(pause):
			now := time.Now()
			h.evictOld(now)
			h.trimRecent(now, pause+2*liveAge)
			h.forgetAway(now)
		case <-h.closed.Done():
			return
		}
	}
}

// evictOld evicts the segments that hold nothing young enough. Segments are in
// the order of their last event.
func (h *Hub) evictOld(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	oldest := now.Add(-h.options.HistoryAge).UnixNano()
	for h.segments.Len() > 0 {
		seg := h.segments.Front().Value.(*segment)
		if seg.last().at >= oldest {
			return
		}
		h.dropOldest(seg.channel)
	}
}

// trimRecent evicts what the channels that had events within a time hold only
// for live streams, and hold no longer than these need.
func (h *Hub) trimRecent(now time.Time, within time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	since := now.Add(-within).UnixNano()
	for e := h.segments.Back(); e != nil; {
		seg := e.Value.(*segment)
		if seg.last().at < since {
			return
		}
		e = e.Prev()
		for e != nil && e.Value.(*segment).channel == seg.channel {
			e = e.Prev() // trim may remove it
		}
		h.trim(seg.channel, now)
	}
}
