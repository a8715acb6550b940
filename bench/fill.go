//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// A tenth is a row of the table: some of the events, one part after the other.
type tenth struct {
	events   int
	took     time.Duration
	cpu      time.Duration // of the server
	file     int64         // its size afterwards, in bytes
	memory   int           // of the server afterwards, in bytes
	p50, p99 time.Duration // of a publish of one event
}

// A filling is what goes on while the events are published.
type filling struct {
	*server
	set    *record
	file   string
	stream *audience
	tally  *tally
	feeds  []*feed
	single *publisher
	sent   int // by single
	cancel context.CancelCauseFunc
}

// fill publishes all events.
func (set *record) fill(ctx context.Context, s *server, file string) (parts []tenth, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	f := &filling{server: s, set: set, file: file, tally: newTally(feeds + 1), cancel: cancel}
	f.stream, err = s.open(ctx, []subscription{{channel: recordChannels}}, f.tally, steady)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.stream.close()) }()
	for i := range feeds {
		c, err := s.openFeed(ctx, channelOf(i), f.tally.series(i), set.size)
		if err != nil {
			return nil, err
		}
		defer c.close()
		f.feeds = append(f.feeds, c)
	}
	if f.single, err = s.newPublisher(ctx, channelOf(feeds), set.size); err != nil {
		return nil, err
	}
	defer f.single.close()
	for i := range rows {
		fmt.Fprintf(os.Stderr, "part %d of %d\n", i+1, rows)
		p, err := f.publishPart(ctx)
		if err != nil {
			return nil, fmt.Errorf("part %d: %w", i+1, err)
		}
		parts = append(parts, p)
	}
	return parts, nil
}

// channelOf returns the channel of the i-th publisher.
func channelOf(i int) string { return "record-" + strconv.Itoa(i) }

// publishPart publishes a part, and looks at the server when it is idle.
func (f *filling) publishPart(ctx context.Context) (tenth, error) {
	if err := f.settle(ctx); err != nil {
		return tenth{}, err
	}
	before := f.tally.count()
	cpu, start := f.cpu(), time.Now()
	latency, err := f.publish(ctx)
	if err != nil {
		return tenth{}, err
	}
	took := time.Since(start)
	if err := f.settle(ctx); err != nil {
		return tenth{}, err
	}
	p := tenth{
		events: f.tally.count() - before, took: took, cpu: f.cpu() - cpu,
		p50: latency.quantile(0.50), p99: latency.quantile(0.99),
	}
	if p.memory, err = f.memory(ctx); err != nil {
		return tenth{}, err
	}
	info, err := os.Stat(f.file)
	if err != nil {
		return tenth{}, err
	}
	p.file = info.Size()
	return p, f.stream.check()
}

// publish returns when everything that was published is received, with the
// latency of the publisher of single events.
func (f *filling) publish(ctx context.Context) (*histogram, error) {
	latency := new(histogram)
	fed, done := make(chan struct{}), make(chan struct{})
	var lines, running sync.WaitGroup
	for _, c := range f.feeds {
		lines.Go(func() { f.fail(c.publish(f.set.events / rows / feeds)) })
	}
	running.Go(func() {
		lines.Wait()
		close(fed)
	})
	running.Go(func() { f.fail(f.publishSingles(fed, latency)) })
	go func() {
		running.Wait()
		close(done)
	}()
	err := f.stream.wait(ctx, done)
	if err == nil {
		err = f.stream.wait(ctx, f.tally.reached(f.published()))
	}
	if err != nil {
		f.cancel(err)
		<-done
		return nil, fmt.Errorf("%d of %d events were received: %w", f.tally.count(), f.published(), context.Cause(ctx))
	}
	return latency, nil
}

// fail ends everything because of an error, if it is one. The connections of
// the publishers end with the context.
func (f *filling) fail(err error) {
	if err != nil {
		f.cancel(fmt.Errorf("publish: %w", err))
	}
}

// publishSingles publishes one event after the other for as long as lines are
// published, at least one.
func (f *filling) publishSingles(fed <-chan struct{}, latency *histogram) error {
	for {
		start := now()
		if err := f.single.post(f.tally.series(feeds), f.sent); err != nil {
			return err
		}
		latency.add(now() - start)
		f.sent++
		select {
		case <-fed:
			return nil
		default:
		}
	}
}

// published returns how many events were sent, while nobody sends.
func (f *filling) published() int {
	n := f.sent
	for _, c := range f.feeds {
		n += c.sent
	}
	return n
}
