package sse

import (
	"container/list"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"
)

// tailPause is the time between two attempts to follow a record that cannot be
// followed.
const tailPause = time.Second

// warmEvents is how many of the newest events a hub that starts takes into
// memory, so that a crowd that comes back after a restart need not read the
// record one by one.
const warmEvents = 100_000

// tail follows the record until the hub is closed.
func (h *Hub) tail() {
	for h.closed.Err() == nil {
		at := Position{Epoch: h.epoch, Seq: h.head.Load()}
		err := h.broker.Tail(h.closed, at, h.deliver)
		if h.closed.Err() != nil {
			return
		}
		h.tailFailed(err)
		if h.isLost(err) {
			close(h.lost)
			return
		}
		select {
		case <-time.After(tailPause):
		case <-h.closed.Done():
		}
		if h.startAgain() {
			close(h.lost)
			return
		}
	}
}

// isLost reports whether the record that the hub is in the middle of is gone: another
// one has taken its place, or entries that the hub has not taken in are no longer kept.
func (h *Hub) isLost(err error) bool {
	return errors.Is(err, ErrGone) && h.attachedOnce()
}

// Lost returns a channel that is closed when the hub can follow its record no more:
// the broker has lost it, or has given up entries before the hub had them. The hub's
// streams get nothing new from then on. Whoever runs it makes another one on the
// same broker, and closes this one: its clients come back to that, and are told what
// they may have missed.
func (h *Hub) Lost() <-chan struct{} { return h.lost }

// startAgain makes a hub that never could follow the record begin where it is
// now: others may publish to the broker while the hub starts, and a broker may
// give up what the hub was about to take in. It reports whether the record is another
// one by now, for which it takes another hub.
func (h *Hub) startAgain() (lost bool) {
	if h.attachedOnce() {
		return false
	}
	state, err := h.broker.State(h.closed)
	if err != nil {
		return false // the next attempt to follow it tells why
	}
	at := state.warmStart()
	if at.Epoch != h.epoch {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.startAt(at.Seq, state.Ended)
	return false
}

// startAt makes the hub begin with nothing at a seq. Nobody has subscribed.
func (h *Hub) startAt(seq uint64, ended []Ended) {
	h.head.Store(seq)
	h.settled.Store(seq)
	h.forgotten = seq
	h.index = newIndex()
	h.recent, h.segments, h.idle = list.List{}, list.List{}, list.List{}
	h.size, h.idleSize = 0, 0
	h.ended = newEnds()
	for _, e := range ended {
		h.ended.add(e.Channel, e.Seq)
	}
}

// warmStart returns the position from which a hub that starts takes in what the
// record keeps.
func (s State) warmStart() Position {
	at := s.Oldest
	if s.Newest.Seq > warmEvents {
		at.Seq = max(at.Seq, s.Newest.Seq-warmEvents)
	}
	return at
}

func (h *Hub) tailFailed(err error) {
	if err == nil {
		err = errors.New("the broker's tail ended without a reason")
	}
	h.mu.Lock()
	known := h.tailError != nil && h.tailError.Error() == err.Error()
	h.tailError = err
	log := h.options.Logger
	h.mu.Unlock()
	if !known {
		log.Error("cannot follow the record; trying again until it works", slog.Any("error", err))
	}
}

// deliver takes entries from the broker's tail. The lock is released between
// two of them, so that those who join or leave do not wait for a whole batch.
func (h *Hub) deliver(entries []Entry) {
	if len(entries) == 0 {
		h.attached()
		return
	}
	for i := range entries {
		if q := entries[i].Question; q != nil {
			h.pose(q)
			continue
		}
		h.ingest(&entries[i])
	}
}

func (h *Hub) attached() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tailError = nil
	if !h.attachedOnce() {
		close(h.ready)
	}
}

func (h *Hub) attachedOnce() bool {
	select {
	case <-h.ready:
		return true
	default:
		return false
	}
}

// ingest makes one entry part of the hub: encoded once, appended to the
// history of each of its channels, and told to their subscribers.
//
// The order matters, because subscribers read without the hub's lock. Head
// moves when the entry is in all of its histories, so that nobody skips it by
// reading a later one first; subscribers are told after that, so that whoever
// is woken finds it.
func (h *Hub) ingest(e *Entry) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seq := e.Position.Seq
	if want := h.head.Load() + 1; seq != want || e.Position.Epoch != h.epoch {
		panic(fmt.Sprintf("sse: broken broker: its tail delivered %s where %s.%d follows", e.Position, h.epoch, want))
	}
	h.noteEnds(e)
	if e.Event.End != EndOnly {
		h.frame = AppendEvent(h.frame[:0], e.Position, &e.Event)
		for _, name := range e.Event.Channels {
			h.keep(h.channel(name), seq, e.Time.UnixNano())
		}
	}
	h.head.Store(seq)
	if e.Event.End != EndOnly {
		for _, name := range e.Event.Channels {
			h.announce(h.index.channels[name])
		}
	}
	if e.Event.End != EndNone {
		h.announceEnds(e)
	}
	h.settled.Store(seq)
	if h.attachedOnce() {
		h.stats.published.Add(1)
	}
	h.evict()
	if cap(h.frame) > segmentBytes {
		h.frame = nil // do not hold on to the largest event there ever was
	}
}

// channel returns the channel of that name, which it makes if needed.
func (h *Hub) channel(name string) *channel {
	ch := h.index.channels[name]
	if ch == nil {
		name = strings.Clone(name) // it may be a part of a publisher's whole request
		ch = &channel{topic: topic{name: name, forgotten: h.forgotten}}
		h.index.channels[name] = ch
	}
	return ch
}

// keep appends the current frame to the channel's history.
func (h *Hub) keep(ch *channel, seq uint64, at int64) {
	h.revive(ch)
	seg, grown := ch.append(ch, h.frame, seq, at)
	h.size += int64(grown)
	if seg.order == nil {
		seg.order = h.segments.PushBack(seg)
	} else {
		h.segments.MoveToBack(seg.order)
	}
	if ch.recent == nil {
		ch.recent = h.recent.PushFront(ch)
		h.size += ch.cost()
	} else {
		h.recent.MoveToFront(ch.recent)
	}
	h.trim(ch, time.Unix(0, at))
}

// announce tells the subscribers of a channel that it has something new.
func (h *Hub) announce(ch *channel) {
	matching := h.index.matches(ch)
	crowd := len(ch.subscribers)
	for _, t := range matching {
		crowd += len(t.subscribers)
	}
	for _, s := range ch.subscribers {
		s.mark(ch, crowd)
	}
	for _, t := range matching {
		for _, s := range t.subscribers {
			s.mark(ch, crowd)
		}
	}
}
