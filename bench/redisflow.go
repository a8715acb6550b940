//go:build linux

package main

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"
)

// A flow is how events are published over many channels.
type flow struct {
	// publishers are connected to each node that is published to.
	publishers int
	// channels have an event each, in turns. They are a multiple of all publishers,
	// so that each has one, and its events an order.
	channels int
	// together is how many events are in a request.
	together int
	// every is the time between two requests of a publisher. Without one the next
	// leaves when the last is answered.
	every   time.Duration
	lasting time.Duration
	// window is how many events the publishers are ahead of the streams at most, if
	// it is positive: then they are as fast as those receive.
	window int
}

// A flowResult is what it told.
type flowResult struct {
	usage
	events, deliveries int
	took, client       time.Duration
	latency            *histogram
	worst              [2]time.Duration // latency of each half
}

// channelName is always as long, so that it can be replaced in a request.
func channelName(i int) string { return fmt.Sprintf("c-%06d", i) }

// place returns what a stream of a channel is to get of so many publishers, the first
// of which publishes a series and the others those that follow.
func (f flow) place(channel, publishers int, first uint32) place {
	return place{
		series: first + uint32(channel%publishers),
		next:   uint32(channel / publishers),
		step:   uint32(f.channels / publishers),
	}
}

// A rover publishes on one channel after the other.
type rover struct {
	*publisher
	names      [][]byte // of the channels in the request
	number, of int      // which publisher it is, and of how many
	series     uint32   // of its events
	channels   int
	events     atomic.Int64 // that were published
}

func (f flow) newRover(ctx context.Context, s *server, number, of, size int) (*rover, error) {
	channels := make([]string, f.together)
	for i := range channels {
		channels[i] = channelName(0)
	}
	p, err := s.newArrayPublisher(ctx, channels, size)
	if err != nil {
		return nil, err
	}
	r := &rover{publisher: p, number: number, of: of, channels: f.channels}
	for _, data := range p.data {
		// The name stands before the data, up to a few bytes that are always the same.
		end := cap(p.request) - cap(data) - len(`","data":"`)
		r.names = append(r.names, p.request[end-len(channels[0]):end])
	}
	return r, nil
}

// post publishes the next events.
func (r *rover) post() error {
	for i, data := range r.data {
		n := int(r.events.Load()) + i
		channel := r.number + r.of*(n%(r.channels/r.of))
		copy(r.names[i], channelName(channel))
		stamp{r.series, uint32(n), now()}.put(data)
	}
	err := r.send()
	r.events.Add(int64(len(r.data)))
	return err
}

// aheadPause is how long a publisher waits that is too far ahead of the streams. They
// need longer for what it is ahead.
const aheadPause = time.Millisecond

// run publishes for some time, at least once, by the clock or when it may.
func (r *rover) run(ctx context.Context, start time.Time, every, lasting time.Duration, may func() bool) error {
	next := start.Add(every * time.Duration(r.number) / time.Duration(r.of)) // they do not publish in step
	for {
		if every > 0 {
			select {
			case <-time.After(time.Until(next)):
				next = next.Add(every)
			case <-ctx.Done():
				return nil
			}
		}
		for !may() && ctx.Err() == nil {
			time.Sleep(aheadPause)
		}
		if r.events.Load() > 0 && time.Since(start) >= lasting {
			return nil
		}
		if err := r.post(); err != nil {
			return err
		}
	}
}
