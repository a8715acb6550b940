//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"
)

// A stormStep is something whose cost is reported.
type stormStep string

const (
	stepConnect   stormStep = "connect, nothing missed"
	stepLive      stormStep = "live, one event at a time"
	stepBurst     stormStep = "live, in a burst"
	stepStorm     stormStep = "reconnect, all missed"
	stepStart     stormStep = "started again after kill -9"
	stepConnected stormStep = "connect after that, nothing missed"
	stepRestarted stormStep = "reconnect after that, all missed"
)

// A cost is what a step took of the server.
type cost struct {
	took, cpu time.Duration
	p50, p99  time.Duration
	peak      int // bytes of resident memory, the program's file included
}

// stormParts are what a round consists of. As with the fan-out, each is done by
// all before the next one is. Each opens its own streams, so that only one
// server has them.
var stormParts = []struct {
	name string
	do   func(*refuge, context.Context) error
}{
	{"warm up", (*refuge).warmUp},
	{"connect", (*refuge).measureConnect},
	{"live", (*refuge).measureLive},
	{"storm", (*refuge).measureStorm},
	{"connect after kill -9", (*refuge).measureConnected},
	{"storm after kill -9", (*refuge).measureRestarted},
}

// measure returns what something costs. The quantiles are of what it returns.
func (f *refuge) measure(ctx context.Context, do func() (*histogram, error)) (cost, error) {
	if err := f.settle(ctx); err != nil {
		return cost{}, err
	}
	if err := f.resetPeak(); err != nil {
		return cost{}, err
	}
	cpu, start := f.cpu(), time.Now()
	times, err := do()
	if err != nil {
		return cost{}, err
	}
	took := time.Since(start)
	if err := f.settle(ctx); err != nil {
		return cost{}, err
	}
	peak, err := f.peak()
	return cost{
		took: took, cpu: f.cpu() - cpu, peak: peak,
		p50: times.quantile(0.50), p99: times.quantile(0.99),
	}, err
}

// fresh returns what streams ask for that begin now.
func (f *refuge) fresh() []subscription {
	wanted := make([]subscription, f.set.streams)
	for i := range wanted {
		wanted[i].channel = f.channels[i%len(f.channels)]
	}
	return wanted
}

// series returns one of which each stream is to get each event, on its channel.
func (f *refuge) series(events int) *series { return newSeries(events, f.set.streams, 1) }

// publisher returns one that publishes on all channels at a time.
func (f *refuge) publisher(ctx context.Context) (*publisher, error) {
	return f.newArrayPublisher(ctx, f.channels, f.set.size)
}

// warmUp lets the server have all its streams once: it then has the memory for
// them.
func (f *refuge) warmUp(ctx context.Context) error {
	_, err := f.cutOff(ctx)
	return err
}

// cutOff opens all streams, has them receive an event, and cuts them off. It
// returns how they would resume.
func (f *refuge) cutOff(ctx context.Context) ([]subscription, error) {
	s := f.series(1)
	a, err := f.open(ctx, f.fresh(), s, rush)
	if err != nil {
		return nil, err
	}
	err = f.publishAhead(ctx, s)
	if err == nil {
		err = a.wait(ctx, s.complete)
	}
	if err := errors.Join(err, a.close()); err != nil {
		return nil, fmt.Errorf("the last event before the cut: %w", err)
	}
	return a.left(), nil
}

func (f *refuge) publishAhead(ctx context.Context, s *series) error {
	p, err := f.publisher(ctx)
	if err != nil {
		return err
	}
	defer p.close()
	return p.runAhead(s)
}

func (f *refuge) measureConnect(ctx context.Context) (err error) {
	f.costs[stepConnect], err = f.connect(ctx)
	return err
}

func (f *refuge) connect(ctx context.Context) (cost, error) {
	var a *audience
	c, err := f.measure(ctx, func() (times *histogram, err error) {
		a, err = f.open(ctx, f.fresh(), nothing{}, rush)
		if err != nil {
			return nil, err
		}
		return a.waits(func(i int) time.Duration { return a.streams[i].answered }), nil
	})
	if a != nil {
		err = errors.Join(err, a.close())
	}
	return c, err
}

// measureLive delivers to open streams what the others miss.
func (f *refuge) measureLive(ctx context.Context) error {
	a, err := f.open(ctx, f.fresh(), nothing{}, rush)
	if err != nil {
		return err
	}
	one := load{events: f.set.events, receivers: f.set.streams, publishers: 1}
	f.costs[stepLive], err = f.deliver(ctx, a, func(ctx context.Context, p *publisher, s *series) error {
		return p.run(ctx, one, s, 0)
	})
	if err == nil {
		f.costs[stepBurst], err = f.deliver(ctx, a, func(_ context.Context, p *publisher, s *series) error {
			return p.runAhead(s)
		})
	}
	return errors.Join(err, a.close())
}

func (f *refuge) deliver(ctx context.Context, a *audience, publish func(context.Context, *publisher, *series) error) (cost, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := f.publisher(ctx)
	if err != nil {
		return cost{}, err
	}
	s := f.series(f.set.events)
	a.expect(s)
	return f.measure(ctx, func() (*histogram, error) {
		published := make(chan error, 1)
		go func() { published <- publish(ctx, p, s) }()
		err := a.wait(ctx, s.complete)
		if err != nil {
			cancel() // the publisher waits for what does not arrive
		}
		return &s.latency, errors.Join(err, <-published, a.check())
	})
}

// measureStorm is what it is all about.
func (f *refuge) measureStorm(ctx context.Context) error {
	back, s, err := f.miss(ctx)
	if err != nil {
		return err
	}
	f.costs[stepStorm], err = f.comeBack(ctx, back, s)
	return err
}

// miss cuts all streams off, and publishes what they miss.
func (f *refuge) miss(ctx context.Context) ([]subscription, *series, error) {
	back, err := f.cutOff(ctx)
	if err != nil {
		return nil, nil, err
	}
	s := f.series(f.set.events)
	return back, s, f.publishAhead(ctx, s)
}

// comeBack measures until all streams have what they missed, and checks that
// each was told so.
func (f *refuge) comeBack(ctx context.Context, back []subscription, s *series) (cost, error) {
	var a *audience
	c, err := f.measure(ctx, func() (times *histogram, err error) {
		a, err = f.open(ctx, back, s, rush)
		if err != nil {
			return nil, err
		}
		if err = a.wait(ctx, s.complete); err != nil {
			return nil, err
		}
		return a.waits(func(i int) time.Duration { return s.finished[i] }), nil
	})
	if a != nil {
		err = errors.Join(err, a.close(), a.checkResumed())
	}
	return c, err
}

// startAgain kills the server and measures its start, until it is idle.
func (f *refuge) startAgain(ctx context.Context) error {
	start := time.Now()
	if err := f.restart(ctx); err != nil {
		return err
	}
	took := time.Since(start)
	if err := f.settle(ctx); err != nil {
		return err
	}
	peak, err := f.peak()
	f.costs[stepStart] = cost{took: took, cpu: f.cpu(), peak: peak}
	return err
}

// measureConnected tells what connecting costs a process that has just begun.
func (f *refuge) measureConnected(ctx context.Context) error {
	if err := f.startAgain(ctx); err != nil {
		return err
	}
	var err error
	f.costs[stepConnected], err = f.connect(ctx)
	return err
}

// measureRestarted is a storm to which the kill of the server belongs.
func (f *refuge) measureRestarted(ctx context.Context) error {
	if f.broker == "memory" {
		return nil // its events are gone, as everybody would be told
	}
	back, s, err := f.miss(ctx)
	if err != nil {
		return err
	}
	if err := f.startAgain(ctx); err != nil {
		return err
	}
	f.costs[stepRestarted], err = f.comeBack(ctx, back, s)
	return err
}

// resetPeak begins a new measurement of the greatest resident memory.
func (s *server) resetPeak() error {
	return os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", s.pid), []byte("5"), 0)
}

// peak returns the greatest resident memory since the last reset, in bytes.
func (s *server) peak() (int, error) {
	kib, err := readNumbers(fmt.Sprintf("/proc/%d/status", s.pid))
	return kib["VmHWM:"] << 10, err
}
