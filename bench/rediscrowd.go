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

// A crowd is the streams of those nodes that have some, over the channels of a flow.
type crowd struct {
	*cluster
	flow
	audiences []*audience
	wanted    []int // channels of the streams, the same on all nodes
	size      int   // of an event
}

// openCrowd opens as many streams on each of the nodes.
func (set *redis) openCrowd(ctx context.Context, c *cluster, on []*server, channel func(i int) int, f flow) (*crowd, error) {
	w := &crowd{cluster: c, flow: f, size: set.size}
	var wanted []subscription
	for i := range set.streams {
		w.wanted = append(w.wanted, channel(i))
		wanted = append(wanted, subscription{channel: channelName(channel(i))})
	}
	for _, s := range on {
		a, err := s.open(ctx, wanted, nothing{}, steady)
		if err != nil {
			return nil, errors.Join(err, w.leave())
		}
		w.audiences = append(w.audiences, a)
	}
	return w, nil
}

func (w *crowd) leave() (err error) {
	for _, a := range w.audiences {
		err = errors.Join(err, a.close())
	}
	return err
}

// measure publishes to nodes after a tenth of it as a warm-up, and checks that all
// streams get all that is for them, once and in order.
func (w *crowd) measure(ctx context.Context, to []*server) (flowResult, error) {
	if _, err := w.apply(ctx, w.lasting/10, to); err != nil {
		return flowResult{}, fmt.Errorf("warm up: %w", err)
	}
	if err := w.settle(ctx); err != nil {
		return flowResult{}, err
	}
	before, err := w.usage(ctx)
	if err != nil {
		return flowResult{}, err
	}
	told, err := w.apply(ctx, w.lasting, to)
	if err != nil {
		return flowResult{}, err
	}
	if err := w.settle(ctx); err != nil { // what comes after the last event belongs to it
		return flowResult{}, err
	}
	after, err := w.usage(ctx)
	told.usage = after.since(before)
	return told, err
}

// apply publishes for some time, and returns when everything was received.
func (w *crowd) apply(ctx context.Context, lasting time.Duration, to []*server) (flowResult, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	all, err := w.newRovers(ctx, to)
	if err != nil {
		return flowResult{}, err
	}
	rosters := w.expect(all, now()+lasting/2)
	client, start := cpuTime(os.Getpid()), time.Now()
	var running sync.WaitGroup
	for _, r := range all {
		running.Go(func() {
			if err := r.run(ctx, start, w.every, lasting, func() bool { return w.mayPublish(all, rosters) }); err != nil {
				cancel(fmt.Errorf("publish: %w", err))
			}
		})
	}
	for i, a := range w.audiences {
		go func() { // ends with ctx
			select {
			case <-a.ended:
				cancel(fmt.Errorf("node %d: %w", i+1, a.err))
			case <-ctx.Done():
			}
		}()
	}
	running.Wait()
	if err := context.Cause(ctx); err != nil {
		return flowResult{}, err
	}
	told := flowResult{took: time.Since(start)}
	if err := w.await(ctx, all, rosters); err != nil {
		return flowResult{}, err
	}
	told.client = cpuTime(os.Getpid()) - client
	told.count(all, rosters)
	return told, nil
}

// mayPublish reports whether the publishers are not too far ahead of the streams.
func (w *crowd) mayPublish(all []*rover, rosters []*roster) bool {
	if w.window == 0 {
		return true
	}
	published := int64(0)
	for _, r := range all {
		published += r.events.Load()
	}
	for _, r := range rosters { // a delivery stands for the events of some channels
		if published-int64(r.count()*w.channels/len(w.wanted)) > int64(w.window) {
			return false
		}
	}
	return true
}

// newRovers connects publishers to the nodes in turns. They are unusable once ctx is
// done.
func (w *crowd) newRovers(ctx context.Context, to []*server) (all []*rover, err error) {
	of := len(to) * w.publishers
	first := newSeriesIDs(of)
	for i := range of {
		r, err := w.newRover(ctx, to[i%len(to)], i, of, w.size)
		if err != nil {
			return nil, err
		}
		r.series = first + uint32(i)
		all = append(all, r)
	}
	return all, nil
}

// expect has the streams of all nodes expect what the publishers will publish.
func (w *crowd) expect(all []*rover, half time.Duration) (rosters []*roster) {
	for _, a := range w.audiences {
		r := &roster{half: half}
		for _, channel := range w.wanted {
			r.places = append(r.places, w.place(channel, len(all), all[0].series))
		}
		a.expect(r)
		rosters = append(rosters, r)
	}
	return rosters
}

// await returns when each node has delivered what the publishers published.
func (w *crowd) await(ctx context.Context, all []*rover, rosters []*roster) error {
	due := 0
	for _, channel := range w.wanted {
		due += w.place(channel, len(all), 0).due(int(all[channel%len(all)].events.Load()))
	}
	for i, a := range w.audiences {
		if err := a.wait(ctx, rosters[i].reached(due)); err != nil {
			return fmt.Errorf("node %d: %d of %d deliveries: %w", i+1, rosters[i].count(), due, err)
		}
		if err := a.check(); err != nil {
			return fmt.Errorf("node %d: %w", i+1, err)
		}
	}
	return nil
}

// count takes over what was published and received.
func (r *flowResult) count(all []*rover, rosters []*roster) {
	for _, p := range all {
		r.events += int(p.events.Load())
	}
	r.latency = new(histogram)
	for _, of := range rosters {
		r.deliveries += of.count()
		r.latency.merge(&of.latency)
		for half := range r.worst {
			r.worst[half] = max(r.worst[half], of.worst[half])
		}
	}
}
