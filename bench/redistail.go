//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A tail is what is published to one node in large requests, of which another node
// needs a part only for its streams.
type tail struct {
	// channelsPerStream is how many channels have an event while a stream has one.
	channelsPerStream int
}

// tails tell the cost of an event that the node delivers, and of those that it reads
// and has nobody for.
var tails = []tail{{1}, {10}}

// A tailResult is what publishers told that are as fast as the streams receive, and
// others that keep to the clock and do not wait for anybody.
type tailResult struct{ most, paced flowResult }

const (
	// tailTogether is how many events are in a request.
	tailTogether = 100
	// tailWindow is far less than the record keeps. A node that is behind by more than
	// that has to begin anew, and ends its streams.
	tailWindow = 10_000
	// pacedPart is the rate by the clock in proportion to the highest.
	pacedPart = 0.75
	// redisPublishers are connected to each node.
	redisPublishers = 4
)

// multiple returns the next multiple that is not less.
func multiple(n, of int) int { return (n + of - 1) / of * of }

// measureTail publishes to one node of two, and has streams on the other.
func (set *redis) measureTail(ctx context.Context, k *kit, t tail) (r tailResult, err error) {
	c, err := set.startCluster(ctx, k, 2)
	if err != nil {
		return r, err
	}
	defer c.stop()
	// The channels with a stream are spread over all, so that deliveries come evenly.
	channel := func(i int) int { return i*t.channelsPerStream + i%t.channelsPerStream }
	w, err := set.openCrowd(ctx, c, c.nodes[1:], channel, flow{
		publishers: redisPublishers,
		channels:   multiple(set.streams*t.channelsPerStream, redisPublishers),
		together:   tailTogether,
		lasting:    set.lasting,
		window:     tailWindow,
	})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.leave()) }()
	if r.most, err = w.measure(ctx, c.nodes[:1]); err != nil {
		return r, fmt.Errorf("as fast as it receives: %w", err)
	}
	w.window = 0
	w.every = time.Duration(redisPublishers * tailTogether / (pacedPart * r.most.rate()) * float64(time.Second))
	if r.paced, err = w.measure(ctx, c.nodes[:1]); err != nil {
		err = fmt.Errorf("%.0f events a second: %w", pacedPart*r.most.rate(), err)
	}
	return r, err
}

// measureTogether publishes single events by the clock to nodes that all have streams.
func (set *redis) measureTogether(ctx context.Context, k *kit) (r flowResult, err error) {
	c, err := set.startCluster(ctx, k, clusterNodes)
	if err != nil {
		return r, err
	}
	defer c.stop()
	const all = redisPublishers * clusterNodes
	channels := multiple(max(set.streams/perChannel, 1), all)
	w, err := set.openCrowd(ctx, c, c.nodes, func(i int) int { return i % channels }, flow{
		publishers: redisPublishers,
		channels:   channels,
		together:   1,
		every:      all * time.Second / time.Duration(set.rate),
		lasting:    set.lasting,
	})
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, w.leave()) }()
	return w.measure(ctx, c.nodes)
}
