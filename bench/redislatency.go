//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
)

// A hop is what it told to publish to a node and receive from a node.
type hop struct {
	alone, busy hopResult // one event at a time, and 16 publishers
}

// A hopResult is a result with what others than the publisher's node used. Its own
// cpu is that of the publisher's node.
type hopResult struct {
	result
	usage
}

// hops are the ways that an event takes.
var hops = []string{"memory, one node", "redis, same node", "redis, other node"}

// measureLatency publishes to one stream on every way, all of them in turns. Of
// the two nodes that share a record, both follow it, whoever has the stream.
func (set *redis) measureLatency(ctx context.Context, k *kit, number int) ([]hop, error) {
	c, err := set.startCluster(ctx, k, 2)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	memory, err := startServer(ctx, plan{engine: "caddy", kit: k})
	if err != nil {
		return nil, err
	}
	defer memory.stop()
	ways := [][2]*server{{memory, memory}, {c.nodes[0], c.nodes[0]}, {c.nodes[0], c.nodes[1]}} // as hops has them
	told := make([]hop, len(ways))
	for n := range ways {
		i := (number + n) % len(ways)
		told[i].alone, err = set.measureHop(ctx, c, ways[i], load{events: set.events, receivers: 1, publishers: 1})
		if err != nil {
			return nil, fmt.Errorf("%s: %w", hops[i], err)
		}
	}
	for n := range ways {
		i := (number + n) % len(ways)
		told[i].busy, err = set.measureHop(ctx, c, ways[i], load{events: busyFactor * set.events, receivers: 1, publishers: busyPublishers})
		if err != nil {
			return nil, fmt.Errorf("%s, %d publishers: %w", hops[i], busyPublishers, err)
		}
	}
	return told, nil
}

// measureHop publishes to the first of two nodes, and receives from the second.
func (set *redis) measureHop(ctx context.Context, c *cluster, way [2]*server, l load) (h hopResult, err error) {
	a, err := way[1].open(ctx, []subscription{{channel: "hop"}}, nothing{}, steady)
	if err != nil {
		return h, err
	}
	p := &contestant{server: way[0], fanout: &fanout{size: set.size}, audience: a, channel: "hop"}
	defer func() { err = errors.Join(err, p.leave()) }()
	warmUp := l
	warmUp.events = max(l.events/10, 1)
	if _, err := p.apply(ctx, warmUp); err != nil {
		return h, fmt.Errorf("warm up: %w", err)
	}
	if err := c.settle(ctx); err != nil {
		return h, err
	}
	before, err := c.usage(ctx)
	if err != nil {
		return h, err
	}
	if h.result, err = p.apply(ctx, l); err != nil {
		return h, err
	}
	if err := c.settle(ctx); err != nil {
		return h, err
	}
	after, err := c.usage(ctx)
	h.usage = after.since(before)
	return h, err
}
