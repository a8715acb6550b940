package sse

import (
	"bytes"
	"context"
	"slices"
	"time"
)

// ChannelInfo describes a channel that is subscribed to or had events.
type ChannelInfo struct {
	Channel string
	// Subscribers is how many streams get its events, by its name or by a
	// pattern.
	Subscribers int
	// Events and Bytes are what it keeps for replay, as encoded.
	Events, Bytes int
	// Last is the position of its newest event, with Seq zero if it never
	// had one.
	Last Position
	// Ended is whether nothing can be published on it any more.
	Ended bool
}

// KeptEvent is an event that a channel keeps for replay.
type KeptEvent struct {
	ID    Position
	Event string // "message" for the default event
	Data  string
	Time  time.Time
}

// Channels returns up to limit of the channels with a prefix whose names come
// after another in byte order, sorted, and of which may says that they can be
// seen. The empty prefix is all channels, the empty name starts with the first,
// and nil is that all can be seen. The error is that of [SharedBroker.Ask].
func (h *Hub) Channels(ctx context.Context, prefix, after string, limit int, may func(channel string) bool) ([]ChannelInfo, error) {
	infos := h.channels(prefix, after, limit, may)
	return infos, h.countAll(ctx, infos)
}

// countAll counts the subscribers of channels again, if other hubs have some too.
func (h *Hub) countAll(ctx context.Context, infos []ChannelInfo) error {
	if _, shared := h.broker.(SharedBroker); !shared || len(infos) == 0 {
		return nil
	}
	names := make([]string, len(infos))
	for i := range infos {
		names[i] = infos[i].Channel
	}
	counts, err := h.Count(ctx, names...)
	if err != nil {
		return err
	}
	for i := range infos {
		infos[i].Subscribers = counts[i]
	}
	return nil
}

// Count returns how many streams get the events of each of the channels, by name or
// by a pattern, of all hubs that share the record. The error is that of
// [SharedBroker.Ask].
func (h *Hub) Count(ctx context.Context, channels ...string) ([]int, error) {
	answers, err := h.ask(ctx, &question{Count: channels})
	if err != nil {
		return nil, err
	}
	counts := make([]int, len(channels))
	for _, a := range answers {
		for i := range min(len(counts), len(a.Counts)) {
			counts[i] += a.Counts[i]
		}
	}
	return counts, nil
}

func (h *Hub) channels(prefix, after string, limit int, may func(channel string) bool) []ChannelInfo {
	h.mu.Lock()
	names := h.index.names(prefix, after)
	h.mu.Unlock()
	// There may be many, and nobody should wait until they are looked through.
	if may != nil {
		names = slices.DeleteFunc(names, func(name string) bool { return !may(name) })
	}
	slices.Sort(names)

	h.mu.Lock()
	defer h.mu.Unlock()
	found := make([]ChannelInfo, 0, min(len(names), limit))
	for _, name := range names {
		if len(found) == limit {
			break
		}
		if ch := h.index.channels[name]; ch != nil { // else it is gone since
			found = append(found, h.describe(ch))
		}
	}
	return found
}

// Channel returns what is known of a channel and the newest of its kept
// events, up to limit of them, the oldest first. It reports false for one that
// has neither subscribers here nor ever had events that the hub remembers. The error is
// that of [SharedBroker.Ask].
func (h *Hub) Channel(ctx context.Context, name string, limit int) (ChannelInfo, []KeptEvent, bool, error) {
	info, events, ok := h.channelInfo(name, limit)
	infos := []ChannelInfo{info}
	err := h.countAll(ctx, infos)
	return infos[0], events, ok || infos[0].Subscribers > 0, err
}

func (h *Hub) channelInfo(name string, limit int) (ChannelInfo, []KeptEvent, bool) {
	h.mu.Lock()
	ch := h.index.channels[name]
	if ch == nil {
		seq, ended := h.ended.seqs[name]
		h.mu.Unlock()
		return ChannelInfo{Channel: name, Last: Position{h.epoch, seq}, Ended: ended}, nil, ended
	}
	info := h.describe(ch)
	from := ch.kept(min(limit, h.options.HistoryCount), h.oldest()).from
	h.mu.Unlock()

	var events []KeptEvent
	for {
		r, first, hole := ch.history.after(from)
		if hole {
			from = ch.kept(limit, 0).from // evicted in the meantime
			continue
		}
		if first == len(r.entries) {
			return info, events, true
		}
		end := r.search(info.Last.Seq) // more may come while this reads
		for i := first; i < end; i++ {
			events = append(events, h.decodeKept(r, i))
		}
		if end < len(r.entries) {
			return info, events, true
		}
		from = r.entries[end-1].seq
	}
}

func (h *Hub) describe(ch *channel) ChannelInfo {
	k := ch.kept(h.options.HistoryCount, h.oldest())
	_, ended := h.ended.seqs[ch.name]
	return ChannelInfo{
		Channel:     ch.name,
		Subscribers: h.index.count([]string{ch.name}),
		Events:      k.events,
		Bytes:       k.bytes,
		Last:        Position{Epoch: h.epoch, Seq: k.last},
		Ended:       ended,
	}
}

// decodeKept reads a frame back. Only the bytes that are sent are kept; they
// hold all there is.
func (h *Hub) decodeKept(r run, i int) KeptEvent {
	decoder := NewDecoder(bytes.NewReader(r.frame(i)))
	decoder.SetLimit(-1)
	m, err := decoder.Decode()
	if err != nil {
		panic("sse: a kept frame cannot be read: " + err.Error()) // it was encoded here
	}
	return KeptEvent{
		ID:    Position{Epoch: h.epoch, Seq: r.entries[i].seq},
		Event: m.Event,
		Data:  m.Data,
		Time:  time.Unix(0, r.entries[i].at),
	}
}
