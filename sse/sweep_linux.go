package sse

import (
	"runtime"
	"time"
)

// The writers look at all of their streams from time to time, since idle ones have
// no timers of their own.

const (
	leastTick = 5 * time.Millisecond
	mostTick  = time.Second
	// lookAtOnce is how many streams are looked at while others, who may hold
	// the hub's lock, wait to tell the writer of news.
	lookAtOnce = 1024
)

// tickFor returns how often to look at a stream for its keepalives to be about in
// time.
func tickFor(keepalive time.Duration) time.Duration {
	switch {
	case keepalive < 0:
		return mostTick
	case keepalive == 0:
		keepalive = DefaultKeepalive
	}
	return min(max(keepalive/8, leastTick), mostTick)
}

// sweep looks at all streams if it is time to.
func (w *writer) sweep(now int64) {
	w.mu.Lock()
	due := now-w.swept >= int64(w.tick)
	w.mu.Unlock()
	if !due {
		return
	}
	w.swept = now
	old, full := w.look(now)
	for _, st := range old {
		st.subscriber.Close(CloseExpired)
	}
	// They stay full meanwhile: it is the writer itself that takes them up.
	for _, st := range full {
		if now-st.written > int64(deadAfter) || st.lagsTooFar() {
			st.subscriber.Close(CloseSlow)
		}
	}
}

// look queues the streams that something is to be written to, and returns those that
// are too old, and those whose sockets are full.
func (w *writer) look(now int64) (old, full []*directStream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.tick = mostTick
	for i := 0; i < len(w.streams); i++ { // only the writer takes one out
		if i%lookAtOnce == lookAtOnce-1 {
			w.mu.Unlock()
			runtime.Gosched()
			w.mu.Lock()
		}
		st := w.streams[i]
		options := st.subscriber.tuning.Load()
		w.tick = min(w.tick, tickFor(options.Keepalive))
		switch {
		case st.tooOld(options.MaxAge, now):
			old = append(old, st)
		case st.state == directFull:
			full = append(full, st)
			w.queue(st, fewStreams+1) // should its room not have been told of
		case st.state == directIdle && st.isSilent(options.Keepalive, now):
			st.due = true
			w.queue(st, fewStreams+1)
		}
	}
	return old, full
}

// lagsTooFar reports whether a stream whose socket is full is to end for what it
// lags behind. One that is to be reset is told when it can be written to.
func (st *directStream) lagsTooFar() bool {
	return st.subscriber.tuning.Load().Slow == SlowDisconnect && st.subscriber.lagging()
}

// isSilent reports whether nothing was written for about as long as may be. Up to
// a quarter is taken off, by where the stream is, so that those which were written
// to together do not fall into step.
func (st *directStream) isSilent(keepalive time.Duration, now int64) bool {
	switch {
	case keepalive < 0:
		return false
	case keepalive == 0:
		keepalive = DefaultKeepalive
	}
	return now-st.written >= st.spread(int64(keepalive), 4)-int64(tickFor(keepalive))
}

// tooOld reports whether a stream is to end for its age, of which up to a tenth is
// taken off. Those that were older already when the greatest age was lowered end
// within about a tenth of it, and not all at once.
func (st *directStream) tooOld(greatest time.Duration, now int64) bool {
	age := int64(greatest)
	if age <= 0 || now-st.began < st.spread(age, 10) {
		return false
	}
	rounds := max(age/10/int64(mostTick), 1)
	return now-st.began < age+2*int64(mostTick) || (now/int64(mostTick)+int64(st.slot))%rounds == 0
}

// spread takes up to a part of a duration off, each stream its own share.
func (st *directStream) spread(d, part int64) int64 {
	return d - d/part/256*int64(uint8(st.slot*151))
}
