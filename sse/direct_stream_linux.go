package sse

import (
	"cmp"
	"errors"
)

// An outcome is what became of a stream that was served.
type outcome uint8

const (
	outcomeDone outcome = iota // there is nothing more to write
	outcomeFull                // the socket is full
	outcomeMore                // it has had its share
	outcomeLent                // the record is read for it; it comes back by itself
	outcomeOver                // it has ended
)

// serve writes what is pending for a stream, as far as its socket takes it.
func (w *writer) serve(st *directStream, now int64) outcome {
	if st.over {
		return st.fail(nil)
	}
	for budget := visitBytes; ; {
		if len(st.rest) > 0 {
			budget -= len(st.rest)
			if result := w.write(st, now); result != outcomeDone {
				return result
			}
		}
		switch {
		case st.last:
			return outcomeOver
		case st.complete:
			st.complete = false
			return outcomeDone
		case budget <= 0:
			return outcomeMore
		}
		b := st.subscriber.pull()
		if b.behind {
			w.lend(st)
			return outcomeLent
		}
		if !st.take(&b) {
			return outcomeDone
		}
	}
}

// take makes a batch the rest that is to be written. It reports false if there is
// nothing to write.
func (st *directStream) take(b *batch) bool {
	switch {
	case b.closing == CloseClient:
		st.end.Reason, st.last = b.closing, true
	case b.closing != "":
		st.end.Reason, st.last = b.closing, true
		st.rest = closeFrame(b.closing, st.subscriber.retry)
	case b.some():
		st.rest, st.restEvents, st.scratch = b.bytes, b.events, b.scratch
		st.complete = b.complete
	case st.silent:
		st.rest = st.subscriber.keepaliveFrame()
	default:
		return false
	}
	st.silent = false
	return true
}

// write writes the rest. It returns outcomeDone when all of it is written.
func (w *writer) write(st *directStream, now int64) outcome {
	n, err := st.socket.write(st.rest)
	st.end.Bytes += uint64(n)
	if n > 0 {
		st.written = now
	}
	if n < len(st.rest) {
		if err != nil && !errors.Is(err, errFull) {
			return st.fail(err)
		}
		st.rest = st.rest[n:]
		st.complete = false // it is not woken while the socket is full
		return outcomeFull
	}
	st.end.Events += uint64(st.restEvents)
	w.delivered += uint64(st.restEvents)
	st.release()
	return outcomeDone
}

// release gives back what the rest borrowed.
func (st *directStream) release() {
	b := batch{bytes: st.rest, scratch: st.scratch}
	st.rest, st.scratch, st.restEvents = nil, nil, 0
	b.release()
}

// fail ends a stream that cannot be written to. If it was told to end, that is
// why.
func (st *directStream) fail(err error) outcome {
	st.end.Reason = cmp.Or(st.subscriber.closed(), st.end.Reason, CloseClient)
	st.end.Err = cmp.Or(st.end.Err, err)
	return outcomeOver
}

// lend has the record read for a stream by a goroutine, which may wait for it.
func (w *writer) lend(st *directStream) {
	w.hub.running.Go(func() {
		b := st.subscriber.pullBehind(w.hub.closed)
		st.take(&b)
		w.mu.Lock()
		w.queue(st, fewStreams+1)
		w.ring()
	})
}
