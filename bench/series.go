//go:build linux

package main

import (
	"sync/atomic"
	"time"
)

// A series is events that are published one after the other, with a record of
// who received which. The goroutine that receives owns it until it is complete.
type series struct {
	id        uint32
	receivers int
	seen      []bool // by receiver and event
	missing   []int  // receivers, by event
	left      int    // events that somebody misses
	lacking   []int  // events, by receiver
	// finished is when each receiver had all events.
	finished []time.Duration
	latency  histogram
	complete chan struct{}   // closed when none is left
	done     []chan struct{} // gets a token when the publisher's event is received by all
}

var lastSeries atomic.Uint32

// newSeries returns one that the first streams of an audience are to receive.
func newSeries(events, receivers, publishers int) *series {
	s := &series{
		id:        lastSeries.Add(1),
		receivers: receivers,
		seen:      make([]bool, receivers*events),
		missing:   make([]int, events),
		left:      events,
		lacking:   make([]int, receivers),
		finished:  make([]time.Duration, receivers),
		complete:  make(chan struct{}),
		done:      make([]chan struct{}, publishers),
	}
	for i := range s.missing {
		s.missing[i] = receivers
	}
	for i := range s.lacking {
		s.lacking[i] = events
	}
	for i := range s.done {
		s.done[i] = make(chan struct{}, 1)
	}
	return s
}

// take notes that a receiver got an event, and returns whether it was to get
// it, for the first time.
func (s *series) take(receiver int, event stamp, at time.Duration) bool {
	if event.series != s.id || int(event.number) >= len(s.missing) || receiver >= s.receivers {
		return false
	}
	seen := &s.seen[receiver*len(s.missing)+int(event.number)]
	if *seen {
		return false
	}
	*seen = true
	s.latency.add(at - event.at)
	if s.lacking[receiver]--; s.lacking[receiver] == 0 {
		s.finished[receiver] = at
	}
	if s.missing[event.number]--; s.missing[event.number] > 0 {
		return true
	}
	// A publisher that keeps to the clock takes no tokens.
	select {
	case s.done[int(event.number)%len(s.done)] <- struct{}{}:
	default:
	}
	if s.left--; s.left == 0 {
		close(s.complete)
	}
	return true
}
