package sse

import (
	"context"
	"errors"
	"os"
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
		return outcomeOver
	}
	for budget := visitBytes; budget > 0; {
		b, result := w.next(st)
		if result != outcomeDone || !b.some() {
			return result
		}
		budget -= len(b.bytes) - b.sent
		switch result := w.write(st, &b, now); {
		case result != outcomeDone:
			return result
		case b.closing != "":
			return outcomeOver
		case b.complete:
			return outcomeDone
		}
	}
	return outcomeMore
}

// next returns what to write next, an empty batch if there is nothing.
func (w *writer) next(st *directStream) (b batch, result outcome) {
	if st.spare != nil {
		b, st.spare = st.spare.rest, nil
		return b, outcomeDone
	}
	b = st.subscriber.pull()
	switch {
	case b.behind:
		w.lend(st)
		return b, outcomeLent
	case b.closing != "":
		return st.closingBatch(b), outcomeDone
	case b.some():
		st.silent = false
	case st.silent:
		st.silent = false
		b.bytes = st.subscriber.keepaliveFrame()
	}
	return b, outcomeDone
}

// closingBatch adds to a batch of the end what the client is told of it.
func (st *directStream) closingBatch(b batch) batch {
	if b.again = true; b.closing != CloseClient { // else nobody is there to read it
		b.bytes = closeFrame(b.closing, st.subscriber.retry.duration())
	}
	st.subscriber.Close(b.closing) // it is why, whatever comes next
	return b
}

// write writes a batch. It returns outcomeDone when all of it is written.
func (w *writer) write(st *directStream, b *batch, now int64) outcome {
	n, err := 0, error(nil)
	if rest := b.bytes[b.sent:]; len(rest) > 0 {
		n, err = w.send(st, rest)
	}
	if n > 0 {
		st.written = now
		st.bytes += uint64(n)
		b.sent += n
	}
	if b.sent == len(b.bytes) {
		st.events += uint64(b.events)
		w.delivered += uint64(b.events)
		b.release()
		return outcomeDone
	}
	if err != nil && !errors.Is(err, errFull) {
		st.spare = &spare{err: err}
		b.release()
		return outcomeOver
	}
	b.complete = false // it is not woken while the socket is full
	st.spare = &spare{rest: *b}
	return outcomeFull
}

// send writes to a stream's socket. One of TLS that waits in spite of all is given up,
// so that the others do not wait for it.
func (w *writer) send(st *directStream, p []byte) (n int, err error) {
	if st.socket.tls == nil {
		return st.socket.write(p)
	}
	w.guard.watch(st)
	n, err = st.socket.writeTLS(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		st.subscriber.Close(CloseSlow)
	}
	return n, err
}

// lend has the record read for a stream by a goroutine, which may wait for it, but
// not longer than somebody wants it.
func (w *writer) lend(st *directStream) {
	ctx, cancel := context.WithCancel(w.hub.closed)
	w.mu.Lock()
	w.lent[st] = cancel
	if st.gone {
		cancel()
	}
	w.mu.Unlock()
	w.hub.running.Go(func() {
		defer cancel()
		b := st.subscriber.pullBehind(ctx)
		if b.closing != "" {
			b = st.closingBatch(b)
		}
		st.spare = &spare{rest: b}
		w.mu.Lock()
		delete(w.lent, st)
		w.queue(st, fewStreams+1)
		w.ring()
	})
}
