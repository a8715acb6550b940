package sse

import "time"

// idleCost is about what a channel costs of which nothing is kept but the
// knowledge that it had events, in bytes.
const idleCost = 512

// idleShare is the part of the memory budget that may go to that knowledge.
const idleShare = 16

// evict keeps the hub within its memory budget.
func (h *Hub) evict() {
	for h.size > h.options.Memory && h.segments.Len() > 1 {
		h.dropOldest(h.segments.Front().Value.(*segment).channel)
	}
	for int64(h.idle.Len())*idleCost > h.options.Memory/idleShare {
		h.forget(h.idle.Front().Value.(*channel))
	}
}

// trim evicts what a channel holds beyond what is configured.
func (h *Hub) trim(ch *channel) {
	for ch.surplus(h.options.HistoryCount) {
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
}

// forget drops the last that is known of an idle channel. From then on the hub
// assumes the worst of any channel that it does not know: that it had events
// as late as the newest one forgotten.
func (h *Hub) forget(ch *channel) {
	h.forgotten = max(h.forgotten, ch.last)
	for _, t := range h.index.matches(ch) {
		t.forgotten = max(t.forgotten, ch.last)
	}
	h.idle.Remove(ch.idle)
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
			h.evictOld(time.Now())
		case <-h.closed.Done():
			return
		}
	}
}

// evictOld evicts the segments that hold nothing young enough. Segments are in
// the order of their first event, so those after the first young one need not
// be looked at.
func (h *Hub) evictOld(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	oldest := now.Add(-h.options.HistoryAge).UnixNano()
	for e := h.segments.Front(); e != nil; {
		seg := e.Value.(*segment)
		if seg.entries[0].at >= oldest {
			return
		}
		e = e.Next()
		if seg.entries[len(seg.entries)-1].at < oldest {
			h.dropOldest(seg.channel)
		}
	}
}
