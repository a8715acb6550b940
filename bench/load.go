//go:build linux

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
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
	c.audience.series.Store(s)
	cpu, client, start := cpuTime(c.pid), cpuTime(os.Getpid()), time.Now()
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
		cpu:        cpuTime(c.pid) - cpu,
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
		p, err := c.newPublisher(ctx)
		if err != nil {
			return err
		}
		running.Go(func() {
			defer func() { _ = p.conn.Close() }()
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

// A publisher posts events on one connection.
type publisher struct {
	conn    net.Conn
	answers *bufio.Reader
	request []byte
	data    []byte // the end of the request
}

// newPublisher connects to the publish endpoint. The connection is unusable
// once ctx is done.
func (c *contestant) newPublisher(ctx context.Context) (*publisher, error) {
	conn, err := net.Dial("tcp", c.publishAt)
	if err != nil {
		return nil, err
	}
	context.AfterFunc(ctx, func() { _ = conn.Close() })
	request := fmt.Appendf(nil, "POST /sse/publish/%s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", c.channel, c.publishAt, c.size)
	request = append(request, bytes.Repeat([]byte{'x'}, c.size)...)
	return &publisher{
		conn:    conn,
		answers: bufio.NewReader(conn),
		request: request,
		data:    request[len(request)-c.size:],
	}, nil
}

// run publishes the part of a series that is the i-th publisher's.
func (p *publisher) run(ctx context.Context, l load, s *series, i int) error {
	start := time.Now()
	for n := i; n < l.events; n += l.publishers {
		if err := p.post(s.id, n); err != nil {
			return err
		}
		next := s.done[i]
		var tick <-chan time.Time
		if l.every > 0 {
			next, tick = nil, time.After(time.Until(start.Add(time.Duration(n+1)*l.every)))
		}
		select {
		case <-next:
		case <-tick:
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}

func (p *publisher) post(series uint32, n int) error {
	stamp{series, uint32(n), now()}.put(p.data)
	if _, err := p.conn.Write(p.request); err != nil {
		return err
	}
	answer, err := http.ReadResponse(p.answers, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status + ": " + string(body))
	}
	return err
}
