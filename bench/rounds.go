//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// A contestant is an engine in a round.
type contestant struct {
	*server
	*fanout
	audience *audience
	channel  string // to publish on
	sample   sample
	empty    int   // bytes of the server without streams
	failed   error // why it takes no part any more, if it is not ours
}

// A sample is what a round told about an engine.
type sample struct {
	// Bytes of one idle stream, and of one of several on a connection.
	memory, shared     float64
	single, busy, slow result
	// Published to one stream, while all others are on one other channel,
	// or each on a channel of its own.
	two, many result
}

func (s sample) getSingle() result { return s.single }

func (s sample) getBusy() result { return s.busy }

func (s sample) getSlow() result { return s.slow }

func (s sample) getTwo() result { return s.two }

func (s sample) getMany() result { return s.many }

func (s sample) manyOverTwo() float64 { return s.many.perDelivery() / s.two.perDelivery() }

// A round has a sample for each engine that took part.
type round map[string]sample

const (
	busyPublishers = 16
	// What is over quickly is done more often.
	busyFactor = 4
	oneFactor  = 100
	// slowRate is the deliveries a second at which no engine is busy.
	slowRate   = 20_000
	slowFactor = 6
	// shareOfConnection is how many streams share one, where some do.
	shareOfConnection = 6
)

// playRounds also returns what is to be told of engines that are left out.
func (set *fanout) playRounds(ctx context.Context, k *kit) (rounds []round, notes []string, err error) {
	var names []string
	for _, e := range set.engines {
		if missing := engines[e].missing(); missing != "" {
			notes = append(notes, fmt.Sprintf("%s is left out: %s", e, missing))
			continue
		}
		names = append(names, e)
	}
	for i := range set.rounds {
		r, failed, err := set.playRound(ctx, k, names, i)
		if err != nil {
			return nil, nil, err
		}
		rounds, notes = append(rounds, r), append(notes, failed...)
	}
	return rounds, notes, nil
}

// playRound measures fresh processes. Who goes first changes from round to
// round. Each step is done by every engine before the next one is, so that what
// is compared was measured within seconds: the speed of shared machines changes
// from minute to minute.
func (set *fanout) playRound(ctx context.Context, k *kit, names []string, number int) (round, []string, error) {
	var all []*contestant
	for i := range names {
		s, err := startServer(ctx, plan{engine: names[(number+i)%len(names)], kit: k, protocol: set.protocol})
		if err != nil {
			return nil, nil, err
		}
		defer s.stop()
		all = append(all, &contestant{server: s, fanout: set})
	}
	for _, step := range set.steps {
		for _, c := range all {
			fmt.Fprintf(os.Stderr, "%s: round %d of %d: %s: %s\n", set.title, number+1, set.rounds, step.name, c.engine)
			if err := c.take(ctx, step); err != nil {
				return nil, nil, fmt.Errorf("%s: %s: %w", c.engine, step.name, err)
			}
		}
	}
	r := make(round)
	var notes []string
	for _, c := range all {
		if c.failed != nil {
			notes = append(notes, fmt.Sprintf("%s failed in round %d: %v", c.engine, number+1, c.failed))
			continue
		}
		r[c.engine] = c.sample
	}
	return r, notes, nil
}

// take does a step. What fails of somebody else's is told of, and ends nothing.
func (c *contestant) take(ctx context.Context, s step) error {
	if c.failed != nil {
		return nil
	}
	err := s.do(c, ctx)
	if err == nil || ctx.Err() != nil || engines[c.engine].install == "" {
		return err
	}
	c.failed = fmt.Errorf("%s: %w", s.name, err)
	_ = c.leave() // it has failed already
	return nil
}

// subscribe replaces the audience. The channel of its first stream is the one
// to publish on.
func (c *contestant) subscribe(ctx context.Context, n int, channel func(i int) string) error {
	if err := c.leave(); err != nil {
		return err
	}
	wanted := make([]subscription, n)
	for i := range wanted {
		wanted[i].channel = channel(i)
	}
	var err error
	if c.audience, err = c.open(ctx, wanted, nothing{}, steady); err != nil {
		return err
	}
	c.channel = wanted[0].channel
	return c.settle(ctx) // some are not subscribed as soon as they are answered
}

// leave closes the audience, if there is one.
func (c *contestant) leave() error {
	if c.audience == nil {
		return nil
	}
	err := c.audience.close()
	c.audience = nil
	return err
}

// measureMemory is the first step.
func (c *contestant) measureMemory(ctx context.Context) error {
	if err := c.warmUp(ctx); err != nil {
		return err
	}
	if err := c.subscribe(ctx, c.fanout.streams, func(int) string { return "all" }); err != nil {
		return err
	}
	var err error
	c.sample.memory, err = c.perStream(ctx)
	return err
}

// warmUp serves some streams and events before it looks what the server needs
// without any, so that what it needs once is not counted: above all the stacks that
// Go's runtime keeps for as many handlers as have run at a time.
func (c *contestant) warmUp(ctx context.Context) error {
	streams := min(c.fanout.streams, 1000)
	if err := c.subscribe(ctx, streams, func(int) string { return "first" }); err != nil {
		return err
	}
	if _, err := c.apply(ctx, load{events: 100, receivers: streams, publishers: 1}); err != nil {
		return err
	}
	if err := c.leave(); err != nil {
		return err
	}
	var err error
	c.empty, err = c.server.memory(ctx)
	return err
}

// perStream returns the bytes of one idle stream.
func (c *contestant) perStream(ctx context.Context) (float64, error) {
	with, err := c.server.memory(ctx)
	return float64(with-c.empty) / float64(c.fanout.streams), err
}

// measureShared has several streams on each connection, as a browser's tabs do,
// and a server of its own: what this one had for other streams would be there
// for these.
func (c *contestant) measureShared(ctx context.Context) error {
	s, err := startServer(ctx, c.plan)
	if err != nil {
		return err
	}
	defer s.stop()
	fresh := &contestant{server: s, fanout: c.fanout}
	if err := fresh.warmUp(ctx); err != nil {
		return err
	}
	wanted := make([]subscription, c.fanout.streams)
	for i := range wanted {
		wanted[i].channel = "all"
	}
	if fresh.audience, err = s.openShared(ctx, wanted, nothing{}, steady, shareOfConnection); err != nil {
		return err
	}
	c.sample.shared, err = fresh.perStream(ctx)
	return errors.Join(err, fresh.leave())
}

func (c *contestant) measureSingle(ctx context.Context) (err error) {
	c.sample.single, err = c.measure(ctx, load{events: c.fanout.events, receivers: c.fanout.streams, publishers: 1})
	return err
}

func (c *contestant) measureBusy(ctx context.Context) (err error) {
	c.sample.busy, err = c.measure(ctx, load{events: busyFactor * c.fanout.events, receivers: c.fanout.streams, publishers: busyPublishers})
	return err
}

func (c *contestant) measureSlow(ctx context.Context) (err error) {
	c.sample.slow, err = c.measure(ctx, load{
		events:     max(c.fanout.events/slowFactor, 10),
		receivers:  c.fanout.streams,
		publishers: 1,
		every:      max(time.Second*time.Duration(c.fanout.streams)/slowRate, 10*time.Millisecond),
	})
	return err
}

// measureTwo and measureMany have as many streams as each other, so that the
// server's heap is as large and collected as rarely.
func (c *contestant) measureTwo(ctx context.Context) (err error) {
	c.sample.two, err = c.measureOne(ctx, func(i int) string {
		return "two-" + strconv.Itoa(min(i, 1))
	})
	return err
}

func (c *contestant) measureMany(ctx context.Context) (err error) {
	c.sample.many, err = c.measureOne(ctx, func(i int) string {
		return "many-" + strconv.Itoa(i)
	})
	return err
}

// measureOne publishes to the first stream.
func (c *contestant) measureOne(ctx context.Context, channel func(i int) string) (result, error) {
	if err := c.subscribe(ctx, c.fanout.streams, channel); err != nil {
		return result{}, err
	}
	r, err := c.measure(ctx, load{events: oneFactor * c.fanout.events, receivers: 1, publishers: 1})
	return r, errors.Join(err, c.leave())
}
