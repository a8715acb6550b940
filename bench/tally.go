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
	counter
}

func newTally(publishers int) *tally {
	return &tally{first: newSeriesIDs(publishers), next: make([]uint32, publishers)}
}

// newSeriesIDs returns the first of so many that are not used yet.
func newSeriesIDs(n int) uint32 { return lastSeries.Add(uint32(n)) - uint32(n) + 1 }

// series returns what marks the events of the i-th publisher.
func (t *tally) series(i int) uint32 { return t.first + uint32(i) }

// take implements expectation.
func (t *tally) take(_ int, event stamp, _ time.Duration) bool {
	i := event.series - t.first
	if i >= uint32(len(t.next)) || event.number != t.next[i] {
		return false
	}
	t.next[i]++
	t.add()
	return true
}

// A counter counts events that were received, and tells one who waits when they are
// so many.
type counter struct {
	mu       sync.Mutex // guards what follows
	received int
	target   int
	done     chan struct{} // closed when the target is reached; nil without one
}

func (c *counter) add() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.received++
	c.look()
}

// look tells who waits. The lock is held.
func (c *counter) look() {
	if c.done != nil && c.received >= c.target {
		close(c.done)
		c.done = nil
	}
}

// reached returns a channel that is closed when so many events were received in
// all. It is for one who waits at a time.
func (c *counter) reached(events int) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	done := make(chan struct{})
	c.target, c.done = events, done
	c.look()
	return done
}

// count returns how many events were received.
func (c *counter) count() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.received
}
