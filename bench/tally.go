//go:build linux

package main

import (
	"sync"
	"time"
)

// A tally expects all events of some publishers, of each in the order in which
// it numbered them. It keeps a few numbers, however many events there are.
type tally struct {
	first uint32   // series of the first publisher
	next  []uint32 // number of the event that follows, by publisher; the receiver's alone

	mu       sync.Mutex // guards what follows
	received int
	target   int
	done     chan struct{} // closed when the target is reached; nil without one
}

func newTally(publishers int) *tally {
	last := lastSeries.Add(uint32(publishers))
	return &tally{first: last - uint32(publishers) + 1, next: make([]uint32, publishers)}
}

// series returns what marks the events of the i-th publisher.
func (t *tally) series(i int) uint32 { return t.first + uint32(i) }

// take implements expectation.
func (t *tally) take(_ int, event stamp, _ time.Duration) bool {
	i := event.series - t.first
	if i >= uint32(len(t.next)) || event.number != t.next[i] {
		return false
	}
	t.next[i]++
	t.mu.Lock()
	defer t.mu.Unlock()
	t.received++
	t.look()
	return true
}

// look tells who waits. The lock is held.
func (t *tally) look() {
	if t.done != nil && t.received >= t.target {
		close(t.done)
		t.done = nil
	}
}

// reached returns a channel that is closed when so many events were received in
// all. It is for one who waits at a time.
func (t *tally) reached(events int) <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	done := make(chan struct{})
	t.target, t.done = events, done
	t.look()
	return done
}

// count returns how many events were received.
func (t *tally) count() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.received
}
