package ssetest

import (
	"context"
	"fmt"
	"math"
	"sync"

	"github.com/caddy-sse/caddy-sse/sse"
)

func closed(t *trial) {
	t.open(Retention{})
	t.publish(named("a", "1", "x"))
	if err := t.broker.Health(); err != nil {
		t.Errorf("Health of a broker that takes events: %v", err)
	}
	broker, head := t.broker, t.state().Newest
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := broker.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		})
	}
	wg.Wait()
	t.close() // again
	ctx := context.Background()
	_, err := broker.Publish(ctx, []sse.Event{on("a", "2")})
	t.fails("Publish after Close", err, sse.ErrClosed)
	_, err = broker.Publish(ctx, []sse.Event{named("a", "1", "x")})
	t.fails("Publish of a repeat after Close", err, sse.ErrClosed)
	for _, after := range []sse.Position{{}, head, {Epoch: "another", Seq: 1}} {
		_, err = broker.Read(ctx, after, []string{"*"}, 100)
		t.fails("Read after Close", err, sse.ErrClosed)
		_, err = broker.Count(ctx, after, []string{"*"}, 100)
		t.fails("Count after Close", err, sse.ErrClosed)
	}
	_, err = broker.State(ctx)
	t.fails("State after Close", err, sse.ErrClosed)
	t.fails("Health after Close", broker.Health(), sse.ErrClosed)
	err = broker.Tail(ctx, head, func(entries []sse.Entry) {
		t.Errorf("a tail that began after Close is handed %d entries", len(entries))
	})
	t.fails("Tail after Close", err, sse.ErrClosed)
}

func closeWhilePublishing(t *trial) {
	t.open(Retention{})
	t.publish(on("a", "first"))
	broker, live := t.broker, t.live
	var all []attempt
	var mu sync.Mutex
	var wg sync.WaitGroup
	for publisher := range 4 {
		wg.Go(func() {
			for n, err := 0, error(nil); err == nil; n++ {
				a := attempt{events: []sse.Event{on("a", fmt.Sprintf("%d/%d/x", publisher, n)), on("b", fmt.Sprintf("%d/%d/y", publisher, n))}}
				a.positions, err = broker.Publish(t.Context(), a.events)
				a.err = err
				mu.Lock()
				all = append(all, a)
				mu.Unlock()
			}
		})
	}
	live.until(40)
	if err := broker.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	live.over("Close")
	wg.Wait()
	t.close()
	for _, a := range all {
		if a.err != nil {
			t.fails("Publish that Close overtakes", a.err, sse.ErrClosed)
		}
	}
	all = append(all, attempt{events: []sse.Event{on("a", "first")}, positions: []sse.Position{live.entries()[0].Position}})
	switch {
	case t.config.Promise >= KeepsAfterClose:
		t.open(Retention{})
		t.settle(all, t.record())
	case !t.config.Remote:
		t.settle(all, live.entries())
	}
}

func closeWhileReading(t *trial) {
	t.open(Retention{})
	t.publish(numbered("a", 0, 50)...)
	broker, at := t.broker, t.state().Oldest
	stop := t.busy()
	var errs []error
	var mu sync.Mutex
	note := func(err error) bool {
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			errs = append(errs, err)
		}
		return err == nil
	}
	ctx := context.Background()
	var wg sync.WaitGroup
	for _, ask := range []func() error{
		func() error { _, err := broker.State(ctx); return err },
		func() error { _, err := broker.Read(ctx, sse.Position{}, []string{"*"}, 1000); return err },
		func() error { _, err := broker.Read(ctx, sse.Position{}, []string{"a", "b"}, 1000); return err },
		func() error { _, err := broker.Count(ctx, sse.Position{}, []string{"a*"}, math.MaxInt); return err },
	} {
		wg.Go(func() {
			for note(ask()) {
			}
		})
	}
	if t.config.Promise >= KeepsUntilClose {
		wg.Go(func() { note(broker.Tail(ctx, at, func([]sse.Entry) {})) })
	}
	t.live.until(100)
	if err := broker.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	wg.Wait()
	stop()
	for _, err := range errs {
		t.fails("what Close overtakes", err, sse.ErrClosed)
	}
}
