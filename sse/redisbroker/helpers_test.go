package redisbroker_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// patience is how long a test waits for what should come, and fails.
const patience = 30 * time.Second

// quick makes a node notice soon what it notices anyway.
var quick = redisbroker.Tuning{Block: 50 * time.Millisecond}

// A node is a broker and one who tails it.
type node struct {
	*redisbroker.Broker
	t      testing.TB
	cancel context.CancelFunc
	done   chan struct{} // closed when Tail has returned
	err    error         // why; read it after done is closed

	mu     sync.Mutex // guards got and signed
	got    []sse.Entry
	signed bool
}

// start opens a broker on a server and tails it from its newest entry.
func start(t testing.TB, s *redistest.Server, o redisbroker.Options) *node {
	t.Helper()
	return startTuned(t, s, o, quick)
}

func startTuned(t testing.TB, s *redistest.Server, o redisbroker.Options, tuning redisbroker.Tuning) *node {
	t.Helper()
	if o.URL == "" {
		o.URL = s.URL()
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second // machines of tests are slow
	}
	b, err := redisbroker.OpenTuned(o, tuning)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n := &node{Broker: b, t: t, cancel: cancel, done: make(chan struct{})}
	at := n.state().Newest
	go func() {
		defer close(n.done)
		n.err = b.Tail(ctx, at, n.deliver)
	}()
	t.Cleanup(func() {
		cancel()
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		<-n.done
	})
	n.wait("the tail is attached", func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.signed
	})
	return n
}

func (n *node) deliver(entries []sse.Entry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.signed = true
	n.got = append(n.got, entries...)
}

func (n *node) state() sse.State {
	n.t.Helper()
	state, err := n.State(context.Background())
	if err != nil {
		n.t.Fatalf("State: %v", err)
	}
	return state
}

// publish publishes what must be accepted.
func (n *node) publish(events ...sse.Event) []sse.Position {
	n.t.Helper()
	positions, err := n.Publish(context.Background(), events)
	if err != nil {
		n.t.Fatalf("Publish: %v", err)
	}
	return positions
}

// refuses publishes what must be refused for now.
func (n *node) refuses(events ...sse.Event) error {
	n.t.Helper()
	positions, err := n.Publish(context.Background(), events)
	if !errors.Is(err, sse.ErrUnavailable) {
		n.t.Fatalf("Publish: %v, %v; it should be unavailable", positions, err)
	}
	return err
}

// publishes publishes until that works.
func (n *node) publishes(events ...sse.Event) []sse.Position {
	n.t.Helper()
	var positions []sse.Position
	var last error
	n.wait("a publish works", func() bool {
		positions, last = n.Publish(context.Background(), events)
		if last != nil && !errors.Is(last, sse.ErrUnavailable) {
			n.t.Fatalf("Publish: %v", last)
		}
		return last == nil
	})
	return positions
}

// received waits until the tail has handed over data, and returns the positions of
// all that it has.
func (n *node) received(data string) []sse.Position {
	n.t.Helper()
	var positions []sse.Position
	n.wait(fmt.Sprintf("the tail hands over %q", data), func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		positions = nil
		found := false
		for _, e := range n.got {
			positions = append(positions, e.Position)
			found = found || e.Event.Data == data
		}
		return found
	})
	return positions
}

// endsGone waits until the tail ends because the record is another.
func (n *node) endsGone() {
	n.t.Helper()
	n.wait("the tail ends", n.ended)
	if !errors.Is(n.err, sse.ErrGone) {
		n.t.Fatalf("Tail: %v, not ErrGone", n.err)
	}
}

func (n *node) ended() bool {
	select {
	case <-n.done:
		return true
	default:
		return false
	}
}

// stays checks that the tail has not ended.
func (n *node) stays() {
	n.t.Helper()
	if n.ended() {
		n.t.Fatalf("the tail has ended: %v", n.err)
	}
}

func (n *node) healthy() {
	n.t.Helper()
	n.wait("Health is good", func() bool { return n.Health() == nil })
}

func (n *node) ill() { n.t.Helper(); n.wait("Health is bad", func() bool { return n.Health() != nil }) }

// data returns the data of all that the record keeps.
func (n *node) data() (all []string) {
	n.t.Helper()
	for after := (sse.Position{}); ; {
		page, err := n.Read(context.Background(), after, []string{"*"}, 1<<20)
		if err != nil {
			n.t.Fatalf("Read: %v", err)
		}
		for _, e := range page.Entries {
			all = append(all, e.Event.Data)
		}
		if after = page.Through; after == n.state().Newest {
			return all
		}
	}
}

// keeps checks what the record keeps.
func (n *node) keeps(data ...string) {
	n.t.Helper()
	if got := n.data(); !slices.Equal(got, data) {
		n.t.Fatalf("the record keeps %q, not %q", got, data)
	}
}

// wait waits until something holds, by asking again and again.
func (n *node) wait(what string, holds func() bool) { n.t.Helper(); wait(n.t, what, holds) }

func wait(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func on(channel, data string) sse.Event { return sse.Event{Channels: []string{channel}, Data: data} }

func named(id, data string) sse.Event {
	return sse.Event{Channels: []string{"a"}, Data: data, ID: id}
}

func portOf(s *redistest.Server) string { return strconv.Itoa(s.Port) }
