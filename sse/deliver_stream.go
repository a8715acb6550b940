package sse

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"os"
	"sync"
	"time"
)

// An End tells how a stream ended.
type End struct {
	// Reason is [CloseClient] unless the hub ended the stream.
	Reason CloseReason
	// Err is why nothing more could be written, if that was so.
	Err error
	// Events and Bytes were written.
	Events, Bytes uint64
}

const (
	// flushBytes is how much may be written before it is flushed.
	flushBytes = 256 << 10
	// interruptAfter is how long a stream that is to end may go on with a
	// write that its client does not read.
	interruptAfter = time.Second
)

// Stream writes the subscriber's stream to w until the client leaves, ctx is
// done, or the hub ends it, and takes the subscriber out of its hub. It is the
// engine for every HTTP version and system: it runs on the goroutine of the
// request's handler, sleeps while there is nothing to write, and sends all
// that is pending with one flush.
//
// It writes the status and the header of an event stream itself. The writer
// must support flushing by way of [http.ResponseController], or the stream ends
// at once with an error that matches [http.ErrNotSupported].
func (s *Subscriber) Stream(ctx context.Context, w http.ResponseWriter, tuning *Tuning) End {
	return s.Open(ctx, w, tuning).Serve()
}

// An OpenStream is a stream whose head and first frame were written.
type OpenStream struct{ stream }

// Open does the first part of what [Subscriber.Stream] does, and [OpenStream.Serve],
// which must be called, the rest. The first part needs more of a goroutine's stack: a
// stream that goes on upon another one than it began on leaves that small.
func (s *Subscriber) Open(ctx context.Context, w http.ResponseWriter, tuning *Tuning) *OpenStream {
	s.tune(tuning)
	o := &OpenStream{stream{
		subscriber: s,
		ctx:        ctx,
		w:          w,
		controller: http.NewResponseController(w),
		tuning:     tuning,
		woken:      make(chan struct{}, 1),
	}}
	begun := false
	defer func() {
		if !begun { // but panicked, as w may: what wakes the stream must not use it any more
			o.end.Reason = CloseClient
			o.finish()
		}
	}()
	o.begin()
	begun = true
	return o
}

// Serve goes on with the stream until it ends.
func (o *OpenStream) Serve() End {
	st := &o.stream
	defer st.finish()
	for st.drain(); st.end.Reason == ""; st.drain() {
		select {
		case <-st.woken:
		case <-st.keepalive.C:
			st.keepAlive()
		}
	}
	return st.end
}

type stream struct {
	subscriber *Subscriber
	ctx        context.Context // of the request
	unwatch    func() bool     // ends what waits for it
	w          http.ResponseWriter
	controller *http.ResponseController
	woken      chan struct{}
	opened     time.Time
	written    time.Time // when something was last written
	unflushed  int
	end        End

	tuning    *Tuning
	options   StreamOptions // that the timers run for
	keepalive *time.Timer
	age       *time.Timer // nil without a greatest age

	mu         sync.Mutex  // guards what follows
	interrupts *time.Timer // runs from interrupt on
	detached   bool
	// interrupted is set when the write was given a deadline that has passed.
	interrupted bool
}

// begin sets up what wakes the stream, and writes what comes first.
func (st *stream) begin() {
	s := st.subscriber
	s.attach(st)
	// Whatever ends the stream does so by way of Close, so that it is found
	// between two batches too, and the wait in Serve has little to look at.
	st.unwatch = context.AfterFunc(st.ctx, func() { s.Close(CloseClient) })
	st.startTimers()
	if s.answered {
		return
	}
	SetHeader(st.w.Header())
	st.w.WriteHeader(http.StatusOK)
	st.write(s.openFrame(), 0)
	st.flush()
}

// finish takes back what begin has set up.
func (st *stream) finish() {
	st.stopTimers()
	st.unwatch()
	st.detach()
	st.subscriber.hub.stats.closed.add(closeReasons, st.end.Reason)
	st.subscriber.Leave()
}

// drain writes all that is pending.
func (st *stream) drain() {
	for st.end.Reason == "" {
		st.retune() // here, since there may always be more to write
		b := st.subscriber.pull()
		if b.behind {
			b = st.subscriber.pullBehind(st.ctx)
		}
		if b.closing != "" {
			st.close(b.closing)
			return
		}
		if !b.some() {
			break
		}
		st.write(b.bytes, b.events)
		b.release()
	}
	st.flush()
}

func (st *stream) write(frames []byte, events int) {
	if st.end.Reason != "" || len(frames) == 0 {
		return
	}
	n, err := st.w.Write(frames)
	st.end.Bytes += uint64(n)
	st.unflushed += n
	if err != nil {
		st.fail(err)
		return
	}
	st.end.Events += uint64(events)
	st.subscriber.hub.stats.delivered.Add(uint64(events))
	if st.unflushed >= flushBytes {
		st.flush()
	}
}

func (st *stream) flush() {
	if st.end.Reason != "" || st.unflushed == 0 {
		return
	}
	st.unflushed = 0
	if err := st.controller.Flush(); err != nil {
		st.fail(err)
	}
	st.written = time.Now()
}

// close ends a stream that was told to end.
func (st *stream) close(reason CloseReason) {
	if reason != CloseClient { // else nobody is there to read it
		st.write(closeFrame(reason, st.subscriber.retry.duration()), 0)
		st.flush()
	}
	if st.end.Reason == "" {
		st.end.Reason = reason
	}
}

// fail ends a stream that cannot be written to. If it was told to end, that is
// why: its write was interrupted. An HTTP server that gives up a write cancels the
// request too, as if the client had left.
func (st *stream) fail(err error) {
	reason := cmp.Or(st.subscriber.closed(), CloseClient)
	if reason == CloseClient && errors.Is(err, os.ErrDeadlineExceeded) && !st.wasInterrupted() {
		reason = CloseSlow
	}
	st.end.Reason, st.end.Err = reason, err
}

// wake implements waker.
func (st *stream) wake(int) {
	select {
	case st.woken <- struct{}{}:
	default:
	}
}

// interrupt implements waker. A handler that is blocked in a write ends when
// its deadline has passed.
func (st *stream) interrupt() {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.interrupts != nil || st.detached {
		return
	}
	st.interrupts = time.AfterFunc(interruptAfter, func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		if !st.detached {
			st.interrupted = true
			// The error is that of a writer without deadlines, whose
			// writes can only end by themselves.
			_ = http.NewResponseController(innermost(st.w)).SetWriteDeadline(time.Now())
		}
	})
}

func (st *stream) wasInterrupted() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.interrupted
}

// detach ends the use of the response writer by others than its handler.
func (st *stream) detach() {
	st.subscriber.attach(nil)
	st.mu.Lock()
	defer st.mu.Unlock()
	st.detached = true
	if st.interrupts != nil {
		st.interrupts.Stop()
	}
}

// innermost returns the server's own response writer, whose deadline can be
// set while another goroutine writes; wrappers rarely allow that.
func innermost(w http.ResponseWriter) http.ResponseWriter {
	for {
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return w
		}
		w = wrapper.Unwrap()
	}
}
