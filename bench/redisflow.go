//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
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
}

// A flowResult is what it told.
type flowResult struct {
	usage
	events, deliveries int
	took, client       time.Duration
	behind             time.Duration // from the last answer until the last receipt
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
	events     int // that were published
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
		n := r.events + i
		channel := r.number + r.of*(n%(r.channels/r.of))
		copy(r.names[i], channelName(channel))
		stamp{r.series, uint32(n), now()}.put(data)
	}
	err := r.send()
	r.events += len(r.data)
	return err
}

// run publishes for some time, at least once, flat out or by the clock.
func (r *rover) run(ctx context.Context, start time.Time, every, lasting time.Duration) error {
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
		if r.events > 0 && time.Since(start) >= lasting {
			return nil
		}
		if err := r.post(); err != nil {
			return err
		}
	}
}

// A tailFlow is what publishers send flat out, of which a node with streams needs a
// part only.
type tailFlow struct {
	// channelsPerStream is how many channels have an event while a stream has one.
	channelsPerStream int
}

// tailFlows tell the cost of an event that the node delivers, and of those that it
// reads and has nobody for.
var tailFlows = []tailFlow{{1}, {10}}

// multiple returns the next one that is not less.
func multiple(n, of int) int { return (n + of - 1) / of * of }

// measureTail has publishers run flat out on one node, and streams on another.
func (set *redis) measureTail(ctx context.Context, k *kit, t tailFlow) (r flowResult, err error) {
	c, err := set.startCluster(ctx, k, 2)
	if err != nil {
		return r, err
	}
	defer c.stop()
	const publishers = 4
	w, err := set.openCrowd(ctx, c, c.nodes[1:], flow{
		publishers: publishers,
		channels:   multiple(set.streams*t.channelsPerStream, publishers),
		together:   tailTogether,
		lasting:    set.lasting,
	})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.leave()) }()
	return w.measure(ctx, c.nodes[:1])
}

// tailTogether is how many events a publisher that runs flat out sends in a request.
const tailTogether = 100

// measureTogether publishes single events by the clock to nodes that all have streams.
func (set *redis) measureTogether(ctx context.Context, k *kit) (r flowResult, err error) {
	c, err := set.startCluster(ctx, k, clusterNodes)
	if err != nil {
		return r, err
	}
	defer c.stop()
	const publishers = 4
	all := publishers * clusterNodes
	w, err := set.openCrowd(ctx, c, c.nodes, flow{
		publishers: publishers,
		channels:   multiple(max(set.streams/perChannel, 1), all),
		together:   1,
		every:      time.Duration(all) * time.Second / time.Duration(set.rate),
		lasting:    set.lasting,
	})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.leave()) }()
	return w.measure(ctx, c.nodes)
}
