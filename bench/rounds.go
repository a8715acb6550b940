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
	settings
	audience *audience
	channel  string // to publish on
	sample   sample
}

// A sample is what a round told about an engine.
type sample struct {
	memory             float64 // bytes of one idle stream
	single, busy, slow result
	// Published to one stream, while all others are on one other channel,
	// or each on a channel of its own.
	two, many result
}

// A round has a sample for each engine.
type round map[string]sample

const (
	busyPublishers = 16
	// What is over quickly is done more often.
	busyFactor = 4
	oneFactor  = 10
	// slowRate is the deliveries a second at which no engine is busy.
	slowRate   = 20_000
	slowFactor = 6
)

// steps are what a round consists of. Each is done by every engine before the
// next one is, so that what is compared was measured within seconds: the speed
// of shared machines changes from minute to minute.
var steps = []struct {
	name string
	do   func(*contestant, context.Context) error
}{
	{"idle streams", (*contestant).measureMemory},
	{"one event at a time", (*contestant).measureSingle},
	{"events outstanding", (*contestant).measureBusy},
	{"low rate", (*contestant).measureSlow},
	{"one of two channels", (*contestant).measureTwo},
	{"one of many channels", (*contestant).measureMany},
}

func playRounds(ctx context.Context, set settings, caddy string) ([]round, error) {
	var rounds []round
	for i := range set.rounds {
		r, err := playRound(ctx, set, caddy, i)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, r)
	}
	return rounds, nil
}

// playRound measures fresh processes. Who goes first changes from round to
// round.
func playRound(ctx context.Context, set settings, caddy string, number int) (round, error) {
	var all []*contestant
	for i := range engines {
		s, err := startServer(ctx, plan{engine: engines[(number+i)%len(engines)], caddy: caddy})
		if err != nil {
			return nil, err
		}
		defer s.stop()
		all = append(all, &contestant{server: s, settings: set})
	}
	for _, step := range steps {
		for _, c := range all {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s: %s\n", number+1, set.rounds, step.name, c.engine)
			if err := step.do(c, ctx); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", c.engine, step.name, err)
			}
		}
	}
	r := make(round)
	for _, c := range all {
		r[c.engine] = c.sample
	}
	return r, nil
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
	c.audience, err = openAudience(ctx, c.streamsAt, wanted, nothing{})
	c.channel = wanted[0].channel
	return err
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

// measureMemory is the first step, and serves one stream and some events before
// it looks, so that what the server needs once is not counted.
func (c *contestant) measureMemory(ctx context.Context) error {
	if err := c.subscribe(ctx, 1, func(int) string { return "first" }); err != nil {
		return err
	}
	if _, err := c.apply(ctx, load{events: 100, receivers: 1, publishers: 1}); err != nil {
		return err
	}
	if err := c.leave(); err != nil {
		return err
	}
	before, err := c.memory(ctx)
	if err != nil {
		return err
	}
	if err := c.subscribe(ctx, c.streams, func(int) string { return "all" }); err != nil {
		return err
	}
	after, err := c.memory(ctx)
	c.sample.memory = float64(after-before) / float64(c.streams)
	return err
}

func (c *contestant) measureSingle(ctx context.Context) (err error) {
	c.sample.single, err = c.measure(ctx, load{events: c.events, receivers: c.streams, publishers: 1})
	return err
}

func (c *contestant) measureBusy(ctx context.Context) (err error) {
	c.sample.busy, err = c.measure(ctx, load{events: busyFactor * c.events, receivers: c.streams, publishers: busyPublishers})
	return err
}

func (c *contestant) measureSlow(ctx context.Context) (err error) {
	c.sample.slow, err = c.measure(ctx, load{
		events:     max(c.events/slowFactor, 10),
		receivers:  c.streams,
		publishers: 1,
		every:      max(time.Second*time.Duration(c.streams)/slowRate, 10*time.Millisecond),
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
	if err := c.subscribe(ctx, c.streams, channel); err != nil {
		return result{}, err
	}
	r, err := c.measure(ctx, load{events: oneFactor * c.events, receivers: 1, publishers: 1})
	return r, errors.Join(err, c.leave())
}
