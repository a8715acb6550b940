//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// A load is how a series of events is published.
type load struct {
	events, receivers int
	// publishers each keep one event outstanding: they publish the next
	// when all receivers have it.
	publishers int
	// every is the time between two events instead, if it is positive.
	every time.Duration
}

// A result is what a load cost.
type result struct {
	events, deliveries int
	took               time.Duration
	cpu, client        time.Duration // of the server and of this process
	p50, p99           time.Duration // from publish to receipt, of all deliveries
}

// measure applies a load after a tenth of it as a warm-up, and checks that
// every event is received once by every receiver.
func (c *contestant) measure(ctx context.Context, l load) (result, error) {
	warmUp := l
	warmUp.events = max(l.events/10, 1)
	if _, err := c.apply(ctx, warmUp); err != nil {
		return result{}, fmt.Errorf("warm up: %w", err)
	}
	if err := c.settle(ctx); err != nil {
		return result{}, err
	}
	return c.apply(ctx, l)
}

func (c *contestant) apply(ctx context.Context, l load) (result, error) {
	s := newSeries(l.events, l.receivers, l.publishers)
	c.audience.expect(s)
	cpu, client, start := c.cpu(), cpuTime(os.Getpid()), time.Now()
	if err := c.publish(ctx, l, s); err != nil {
		return result{}, err
	}
	took := time.Since(start)
	client = cpuTime(os.Getpid()) - client
	// What comes after the last event, such as going back to sleep, belongs
	// to it.
	if err := errors.Join(c.settle(ctx), c.audience.check()); err != nil {
		return result{}, err
	}
	return result{
		events:     l.events,
		deliveries: l.events * l.receivers,
		took:       took,
		cpu:        c.cpu() - cpu,
		client:     client,
		p50:        s.latency.quantile(0.50),
		p99:        s.latency.quantile(0.99),
	}, nil
}

// publish returns when the whole series is received.
func (c *contestant) publish(ctx context.Context, l load, s *series) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var running sync.WaitGroup
	for i := range l.publishers {
		p, err := c.newPublisher(ctx, c.channel, c.size)
		if err != nil {
			return err
		}
		running.Go(func() {
			defer p.close()
			if err := p.run(ctx, l, s, i); err != nil {
				cancel(fmt.Errorf("publish: %w", err))
			}
		})
	}
	err := c.audience.wait(ctx, s.complete)
	if err != nil && context.Cause(ctx) != nil {
		err = context.Cause(ctx)
	}
	cancel(err)
	running.Wait()
	if errors.Is(err, errSilence) {
		err = errors.Join(err, c.leave()) // now nobody else has the series
		err = fmt.Errorf("%d of %d deliveries are missing: %w", l.events*l.receivers-s.latency.total, l.events*l.receivers, err)
	}
	return err
}
