//go:build linux

package main

import "time"

// A roster expects of each stream the events of its channel, in order, where
// publishers take turns over many channels.
type roster struct {
	places []place
	// half is when the second half of what is published begins.
	half    time.Duration
	worst   [2]time.Duration // latency of events of each half
	latency histogram
	counter
}

// A place is what a stream is to get: the next event of a series, and then every
// step-th.
type place struct{ series, next, step uint32 }

// take implements expectation.
func (r *roster) take(stream int, event stamp, at time.Duration) bool {
	p := &r.places[stream]
	if event.series != p.series || event.number != p.next {
		return false
	}
	p.next += p.step
	late := at - event.at
	r.latency.add(late)
	part := 0
	if event.at >= r.half {
		part = 1
	}
	r.worst[part] = max(r.worst[part], late)
	r.add()
	return true
}

// due returns how many events the place gets of so many in its series. It is for a
// place that has got none yet.
func (p place) due(events int) int {
	return (max(events-int(p.next), 0) + int(p.step) - 1) / int(p.step)
}
