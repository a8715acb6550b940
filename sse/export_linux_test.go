package sse

import (
	"crypto/tls"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// ServedBeforeOne returns how many streams of a crowd a writer takes up before one
// that was woken alone after them, and how many a turn has.
func ServedBeforeOne(crowd int) (most, served int) {
	w := &writer{}
	one := &directStream{writer: w}
	for range crowd {
		(&directStream{writer: w}).wake(crowd)
	}
	one.wake(1)
	var taken [2 * turn]*directStream
	for {
		n := w.take(taken[:])
		for _, st := range taken[:n] {
			if st == one {
				return turn, served
			}
			served++
		}
	}
}

// EndAt returns, of streams that are older than a greatest age was lowered to, how
// many are to end in each of the seconds from then on, until none is left.
func EndAt(streams int, age time.Duration) (ends []int) {
	open := make(map[uint32]*directStream, streams)
	for i := range uint32(streams) {
		open[i] = &directStream{slot: i}
	}
	for now := int64(10 * age); len(open) > 0; now += int64(time.Second) {
		before := len(open)
		for i, st := range open {
			if st.tooOld(age, now) {
				delete(open, i)
			}
		}
		ends = append(ends, before-len(open))
	}
	return ends
}

// LateJoin hands a stream to a writer that has stopped.
func (h *Hub) LateJoin(s *Subscriber, owner Owner) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	socket := socket{fd: int32(fd)}
	w := &writer{hub: h, ender: newEnder(h), stopped: true}
	w.join(&directStream{subscriber: s, writer: w, socket: socket, owner: owner})
	return nil
}

// Join hands a stream with a file to a writer, and returns its place in the poller.
func (h *Hub) Join(s *Subscriber, file int, owner Owner) (slot uint32, err error) {
	w, err := h.writer()
	if err != nil {
		return 0, err
	}
	st := &directStream{subscriber: s, writer: w, socket: socket{fd: int32(file)}, owner: owner}
	w.join(st)
	return st.slot, nil
}

// WriteWithoutRoom has a writer write to a connection that may have no room.
func (h *Hub) WriteWithoutRoom(s *Subscriber, conn *tls.Conn, p []byte) error {
	w := newWriter(h, nil, nil)
	st := &directStream{subscriber: s, writer: w, socket: socket{tls: conn, room: math.MaxInt32}}
	defer w.guard.rest()
	_, err := w.send(st, p)
	return err
}

// QueueHolds reports whether a queue that was emptied still holds on to a stream.
func QueueHolds() bool {
	var q streamQueue
	q.push(new(directStream))
	q.pop()
	return q.head != nil || q.tail != nil
}
