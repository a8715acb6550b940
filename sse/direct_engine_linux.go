package sse

import (
	"cmp"
	"runtime"
	"sync"
)

// The direct engine of a hub: its writers, their poller, and who sees streams
// off. It is started by the first stream.
type directEngine struct {
	writers []*writer
	poller  *poller
	ender   *ender
	next    int // which writer gets the next stream
}

// writer returns the one that is to have the next stream.
func (h *Hub) writer() (*writer, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed.Err() != nil {
		return nil, ErrClosed
	}
	if h.direct == nil {
		engine, err := h.startDirect()
		if err != nil {
			return nil, err
		}
		h.direct = engine
	}
	h.direct.next++
	return h.direct.writers[h.direct.next%len(h.direct.writers)], nil
}

func (h *Hub) startDirect() (*directEngine, error) {
	poller, err := newPoller()
	if err != nil {
		return nil, err
	}
	e := &directEngine{poller: poller, ender: newEnder(h)}
	var writing sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		w := newWriter(h, poller, e.ender)
		e.writers = append(e.writers, w)
		writing.Go(w.run)
	}
	h.running.Go(poller.run)
	h.running.Go(e.ender.run)
	h.running.Go(func() {
		<-h.closed.Done()
		for _, w := range e.writers {
			w.stop()
		}
		writing.Wait()
		poller.close()
		e.ender.stop()
	})
	return e, nil
}

// An ender does, for streams that have ended, what may wait.
type ender struct {
	hub   *Hub
	mu    sync.Mutex // guards what follows
	some  sync.Cond
	ended streamQueue
	done  bool
}

func newEnder(h *Hub) *ender {
	e := &ender{hub: h}
	e.some.L = &e.mu
	return e
}

func (e *ender) end(st *directStream) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.ended.push(st)
	e.some.Signal()
}

func (e *ender) stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.done = true
	e.some.Signal()
}

// run sees streams off until it is stopped and none is left.
func (e *ender) run() {
	for st := e.take(); st != nil; st = e.take() {
		e.see(st)
	}
}

// see sees a stream off.
func (e *ender) see(st *directStream) {
	end := End{Reason: cmp.Or(st.subscriber.closed(), CloseClient), Events: st.events, Bytes: st.bytes}
	if st.spare != nil {
		end.Err = st.spare.err
		st.spare.rest.release()
	}
	st.subscriber.attach(nil)
	st.subscriber.Leave()
	_ = st.socket.close() // nobody can be told
	e.hub.stats.closed.add(closeReasons, end.Reason)
	st.owner.Ended(end)
}

func (e *ender) take() *directStream {
	e.mu.Lock()
	defer e.mu.Unlock()
	for e.ended.head == nil && !e.done {
		e.some.Wait()
	}
	return e.ended.pop()
}
