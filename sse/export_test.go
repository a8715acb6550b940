package sse

import (
	"context"
	"time"
)

// What the tests of package sse_test see of the inside. Everything else is
// tested from outside.

const (
	MaxDirty     = maxDirty
	MaxAway      = maxAway
	MaxBarriers  = maxBarriers
	SegmentBytes = segmentBytes
	LiveBytes    = liveBytes
	IdleCost     = channelCost + 8 // of a channel with a name of eight bytes
	LiveAge      = liveAge
	IdleShare    = idleShare
	FlushBytes   = flushBytes
	WarmEvents   = warmEvents
)

// Pull gives what the subscriber's engine would write next. The bytes are the
// caller's.
func (s *Subscriber) Pull() (frames []byte, events int, closing CloseReason) {
	b := s.next()
	frames = append(frames, b.bytes...)
	events, closing = b.events, b.closing
	b.release()
	return frames, events, closing
}

// next pulls until there is something to write, or nothing.
func (s *Subscriber) next() batch {
	for {
		b := s.pull()
		if b.behind {
			b = s.pullBehind(context.Background())
		}
		if len(b.bytes) > 0 || b.closing != "" || !b.some() {
			return b
		}
		b.release()
	}
}

// Discard pulls all that is pending and gives the number of events.
func (s *Subscriber) Discard() (events int) {
	for {
		b := s.next()
		if len(b.bytes) == 0 {
			return events
		}
		events += b.events
		b.release()
	}
}

func (s *Subscriber) OpenFrame() []byte      { return s.openFrame() }
func (s *Subscriber) KeepaliveFrame() []byte { return s.keepaliveFrame() }
func (s *Subscriber) WorkLen() int           { return len(s.work) }

func (s *Subscriber) Tune(t *Tuning) { s.tuning = t }
func (s *Subscriber) Lagging() bool  { return s.lagging() }

// Lag returns how many bytes the stream lags behind.
func (s *Subscriber) Lag() int64 {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.lag(s.hub.news(s))
}

// Attach makes functions the subscriber's engine.
func (s *Subscriber) Attach(wake, interrupt func()) { s.attach(funcWaker{wake, interrupt}) }

type funcWaker struct{ onWake, onInterrupt func() }

func (w funcWaker) wake(int) {
	if w.onWake != nil {
		w.onWake()
	}
}

func (w funcWaker) interrupt() {
	if w.onInterrupt != nil {
		w.onInterrupt()
	}
}

// AttachCrowd makes a function the subscriber's engine, which is told with how many
// others it is woken.
func (s *Subscriber) AttachCrowd(wake func(crowd int)) { s.attach(crowdWaker(wake)) }

type crowdWaker func(crowd int)

func (w crowdWaker) wake(crowd int) { w(crowd) }
func (crowdWaker) interrupt()       {}

// EvictAll evicts every segment as if all events were too old.
func (h *Hub) EvictAll() { h.evictOld(time.Now().Add(1000 * time.Hour)) }

// Evicted returns the seq of the newest event of the channel that is no longer
// in memory, or reports that nothing is known of it.
func (h *Hub) Evicted(name string) (seq uint64, known bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	ch := h.index.channels[name]
	if ch == nil {
		return 0, false
	}
	ch.history.mu.Lock()
	defer ch.history.mu.Unlock()
	return max(ch.history.evicted, ch.forgotten), true
}

// Forgotten returns the seq of the newest event of the forgotten channels.
func (h *Hub) Forgotten() uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.forgotten
}

func CloseReasons() []CloseReason { return closeReasons }
func ResetReasons() []ResetReason { return resetReasons }

// StartID returns the id that is read as the start.
func StartID(s Start) string {
	if s.fill.number == 0 {
		return s.after.String()
	}
	return string(appendFillID(nil, s.after, s.fill))
}

// Numbers of changes that tests can tell beforehand.
func init() { firstChange = func() uint64 { return 0 } }
