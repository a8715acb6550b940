package sse

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// A writer is a goroutine that writes to many sockets and waits for none of them.
// There is one for each processor. It is told by the hub which streams have
// something to pull, and by the poller which sockets have room again.
type writer struct {
	hub    *Hub
	poller *poller
	ender  *ender
	bell   chan struct{} // rung when the writer sleeps and there is something to do

	mu sync.Mutex // guards what follows
	// Streams that were woken alone, or with a few others, do not wait for
	// the crowd of a large channel, nor this for them: they take turns.
	few, crowd streamQueue
	streams    []*directStream
	lent       map[*directStream]context.CancelFunc // that the record is read for
	tick       time.Duration                        // between two sweeps
	asleep     bool
	stopping   bool
	stopped    bool

	guard     guard
	delivered uint64 // not counted yet; the writer's own
	swept     int64  // when it was swept last, on the writers' clock; the writer's own
}

func newWriter(h *Hub, p *poller, e *ender) *writer {
	w := &writer{
		hub: h, poller: p, ender: e,
		bell: make(chan struct{}, 1), lent: make(map[*directStream]context.CancelFunc), tick: mostTick,
	}
	w.guard.setUp()
	return w
}

const (
	// turn is how many streams of a queue are served before the other one's.
	turn = 32
	// fewStreams is how many are woken at once that are no crowd.
	fewStreams = 64
	// visitBytes is about how much a stream is written before it has to queue
	// again.
	visitBytes = 256 << 10
)

// wake implements waker.
func (st *directStream) wake(crowd int) {
	w := st.writer
	w.mu.Lock()
	if st.state == directIdle {
		w.queue(st, crowd)
	} else if st.state == directTaken {
		st.again = true
	} // else it is looked at again anyway
	w.ring()
}

// interrupt implements waker.
func (st *directStream) interrupt() {
	time.AfterFunc(interruptAfter, func() { st.writer.polled(st, hangUp) })
}

// A pollResult is what the poller tells of a socket.
type pollResult int

const (
	writable pollResult = iota
	hangUp
)

// polled is told by the poller.
func (w *writer) polled(st *directStream, result pollResult) {
	w.mu.Lock()
	st.gone = st.gone || result == hangUp
	switch {
	case st.state == directFull, st.state == directIdle && st.gone:
		w.queue(st, 1)
	case st.state == directTaken:
		st.again = true
		if cancel := w.lent[st]; cancel != nil && st.gone {
			cancel()
		}
	}
	w.ring()
}

// queue puts a stream into a queue. The lock is held.
func (w *writer) queue(st *directStream, crowd int) {
	st.state = directQueued
	if crowd > fewStreams {
		w.crowd.push(st)
	} else {
		w.few.push(st)
	}
}

// ring releases the lock, and wakes the writer if there is something to do.
func (w *writer) ring() {
	wake := w.asleep && (w.few.head != nil || w.crowd.head != nil || w.stopping)
	if wake {
		w.asleep = false
	}
	w.mu.Unlock()
	if wake {
		w.bell <- struct{}{}
	}
}

// join takes over a stream.
func (w *writer) join(st *directStream) {
	w.mu.Lock()
	if w.stopped { // the hub was closed a moment ago
		w.mu.Unlock()
		st.subscriber.Close(CloseDrain)
		w.ender.see(st)
		return
	}
	w.poller.reserve(st)
	st.state = directTaken // by nobody, until all about it is known
	st.place = int32(len(w.streams))
	w.streams = append(w.streams, st)
	w.tick = min(w.tick, tickFor(st.subscriber.tuning.Load().Keepalive))
	w.mu.Unlock()
	if err := w.poller.watch(st); err != nil {
		st.spare = &spare{err: err}
		w.mu.Lock()
		st.gone = true
	} else {
		st.subscriber.attach(st)
		w.mu.Lock()
	}
	w.queue(st, 1)
	w.ring()
}

// run serves streams until the writer is to stop and has none left.
func (w *writer) run() {
	sweep := time.NewTimer(mostTick)
	defer sweep.Stop()
	var taken [2 * turn]*directStream
	var results [2 * turn]outcome
	for {
		now := sinceStart()
		w.sweep(now)
		n := w.take(taken[:])
		if n == 0 {
			if !w.rest(sweep) {
				return
			}
			continue
		}
		for i, st := range taken[:n] {
			results[i] = w.serve(st, now)
		}
		w.guard.rest()
		w.giveBack(taken[:n], results[:n])
		clear(taken[:n])
		w.hub.stats.delivered.Add(w.delivered)
		w.delivered = 0
		// Whoever publishes, or reads a request, waits for a processor.
		runtime.Gosched()
	}
}

// take takes up to a turn of each queue. Nobody rings while there is more.
func (w *writer) take(into []*directStream) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, q := range []*streamQueue{&w.few, &w.crowd} {
		for range turn {
			st := q.pop()
			if st == nil {
				break
			}
			st.state, st.again = directTaken, false
			st.over, st.silent, st.due = st.gone, st.due, false
			into[n] = st
			n++
		}
	}
	w.asleep = n == 0
	return n
}

// rest waits for something to do. It reports false when there is nothing left.
func (w *writer) rest(sweep *time.Timer) (goOn bool) {
	w.mu.Lock()
	pause := w.tick
	idle := len(w.streams) == 0
	done := w.stopping && idle
	w.stopped = done
	w.mu.Unlock()
	if done {
		return false
	}
	if idle {
		<-w.bell
		return true
	}
	sweep.Reset(pause)
	select {
	case <-w.bell:
	case <-sweep.C:
		w.awake()
	}
	return true
}

// awake notes that the writer does not sleep, and takes the bell if it was rung
// meanwhile.
func (w *writer) awake() {
	w.mu.Lock()
	rung := !w.asleep
	w.asleep = false
	w.mu.Unlock()
	if rung {
		<-w.bell
	}
}

// giveBack says what became of streams that were served.
func (w *writer) giveBack(streams []*directStream, results []outcome) {
	var over []*directStream
	w.mu.Lock()
	for i, st := range streams {
		switch {
		case results[i] == outcomeLent:
		case results[i] == outcomeOver:
			w.drop(st)
			over = append(over, st)
		case results[i] == outcomeMore:
			w.queue(st, fewStreams+1)
		case st.again:
			w.queue(st, 1)
		case results[i] == outcomeFull:
			st.state = directFull
		default:
			st.state = directIdle
		}
	}
	w.mu.Unlock()
	for _, st := range over {
		w.poller.remove(st)
		w.ender.end(st)
	}
}

// drop takes a stream out of the list of streams. The lock is held.
func (w *writer) drop(st *directStream) {
	st.state = directStopped
	last := w.streams[len(w.streams)-1]
	w.streams[st.place], last.place = last, st.place
	w.streams[len(w.streams)-1] = nil
	w.streams = w.streams[:len(w.streams)-1]
}

// stop makes run return when the writer has no stream left.
func (w *writer) stop() {
	w.mu.Lock()
	w.stopping = true
	w.ring()
}

// A streamQueue is a list of streams, each of which is in one at most.
type streamQueue struct{ head, tail *directStream }

func (q *streamQueue) push(st *directStream) {
	if q.head == nil {
		q.head = st
	} else {
		q.tail.next = st
	}
	q.tail = st
}

func (q *streamQueue) pop() *directStream {
	st := q.head
	if st == nil {
		return nil
	}
	if q.head, st.next = st.next, nil; q.head == nil {
		q.tail = nil // or the last that there was would stay in memory
	}
	return st
}
