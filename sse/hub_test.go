package sse_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// TestPublish holds what a publisher is told: positions in the order given, and
// each subscriber counted once.
func TestPublish(t *testing.T) {
	h := newHub(t, sse.Options{})
	for _, items := range [][]string{{"a"}, {"a", "b"}, {"a*", "b"}, {"*"}, {"ab*", "a"}, {"c"}} {
		subscribe(t, h, sse.Latest(), items...)
	}
	for _, tc := range []struct {
		name     string
		channels []string
		want     int
	}{
		{"one", []string{"a"}, 5},
		{"nobody's but the pattern's", []string{"z"}, 1},
		{"by a pattern", []string{"abc"}, 3},
		{"two channels, each once", []string{"a", "b"}, 5},
		{"known and unknown", []string{"c", "z"}, 2},
		{"two unknown", []string{"y", "z"}, 1},
	} {
		before := h.Stats().Position
		receipts, err := h.Publish(t.Context(), sse.Event{Channels: tc.channels}, sse.Event{Channels: []string{"c"}})
		if err != nil || len(receipts) != 2 || receipts[0].Subscribers != tc.want || receipts[1].Subscribers != 2 {
			t.Errorf("%s: %v, %v, want %d subscribers", tc.name, receipts, err, tc.want)
		}
		if receipts[0].Position != at(h, before.Seq+1) || receipts[1].Position != at(h, before.Seq+2) {
			t.Errorf("%s: %v after %v", tc.name, receipts, before)
		}
	}
	if got := h.Stats(); got.Published != 12 || got.Position.Seq != 12 {
		t.Errorf("counted: %+v", got)
	}
}

// TestPublishWhole holds that events are published all or none, and that the
// error tells which one is wrong.
func TestPublishWhole(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := subscribe(t, h, sse.Latest(), "a")
	_, err := h.Publish(t.Context(), sse.Event{Channels: []string{"a"}}, sse.Event{Channels: []string{"a"}, Name: "\n"})
	var field *sse.FieldError
	if !errors.As(err, &field) || field.Index != 1 || field.Field != "event" {
		t.Errorf("the error is %v", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := h.Publish(gone, sse.Event{Channels: []string{"a"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if receipts, err := h.Publish(t.Context()); err != nil || len(receipts) != 0 {
		t.Errorf("of no events: %v, %v", receipts, err)
	}
	checkWords(t, "nothing", pullAll(t, s), []string{"hub:open@0 fresh"})
}

// TestPublishOrder holds that if one publish returned before another was called,
// its events come first, and that what is published together stays together.
func TestPublishOrder(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := subscribe(t, h, sse.Latest(), "a")
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			last := uint64(0)
			for range 50 {
				receipts, err := h.Publish(t.Context(), make3Events("a", "a", "a")...)
				if err != nil {
					t.Error(err)
					return
				}
				first := receipts[0].Position.Seq
				if first <= last || receipts[1].Position.Seq != first+1 || receipts[2].Position.Seq != first+2 {
					t.Errorf("%v after %d", receipts, last)
				}
				last = first + 2
			}
		})
	}
	running.Wait()
	checkWords(t, "all", pullAll(t, s), words([]string{"hub:open@0 fresh"}, seqs(1, 600)))
}

// A lateBroker lets a test act between the calls of Position and Tail, and
// fail tails.
type lateBroker struct {
	*sse.MemoryBroker
	beforeTail func() error
}

func (b *lateBroker) Tail(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
	if err := b.beforeTail(); err != nil {
		return err
	}
	return b.MemoryBroker.Tail(ctx, after, deliver)
}

// TestHubOnBusyBroker holds that a hub starts on a broker to which others
// publish meanwhile, once or all the time.
func TestHubOnBusyBroker(t *testing.T) {
	for _, every := range []time.Duration{time.Hour, 100 * time.Millisecond, time.Millisecond} {
		t.Run(every.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				defer cancel()
				broker := &lateBroker{MemoryBroker: sse.NewMemoryBroker()}
				other := func() error {
					_, err := broker.Publish(t.Context(), []sse.Event{{Channels: []string{"a"}}})
					return err
				}
				broker.beforeTail = sync.OnceValue(other)
				h := newHubOn(t, broker, sse.Options{})
				go func() {
					for ctx.Err() == nil {
						if err := other(); err != nil {
							t.Errorf("Publish: %v", err)
						}
						select {
						case <-time.After(every):
						case <-ctx.Done():
						}
					}
				}()
				receipts, err := h.Publish(ctx, sse.Event{Channels: []string{"a"}})
				if err != nil {
					t.Fatalf("Publish: %v; Health: %v", err, h.Health())
				}
				cancel()
				synctest.Wait()
				head := h.Stats().Position.Seq
				if at := receipts[0].Position.Seq; at > head || at == 0 {
					t.Errorf("published at %d, the head is %d", at, head)
				}
			})
		})
	}
}

// TestTailFails holds that a hub whose record cannot be followed says so, tries
// again, and goes on where it was.
func TestTailFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		broken := errors.New("away")
		broker := &lateBroker{MemoryBroker: sse.NewMemoryBroker()}
		tries := 0
		broker.beforeTail = func() error {
			if tries++; tries <= 3 {
				return broken
			}
			return nil
		}
		h := newHubOn(t, broker, sse.Options{})
		synctest.Wait()
		if err := h.Health(); !errors.Is(err, broken) {
			t.Errorf("Health: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if _, err := h.Publish(ctx, sse.Event{Channels: []string{"a"}}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Publish: %v", err)
		}
		s := subscribe(t, h, sse.Latest(), "a") // waits
		if err := h.Health(); err != nil {
			t.Errorf("Health: %v", err)
		}
		publishN(t, h, 1, "a")
		checkWords(t, "then", pullAll(t, s), []string{"hub:open@0 fresh", "1"})
	})
}

// TestHealthBeforeAttached holds that a hub is not healthy before it can
// deliver.
func TestHealthBeforeAttached(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		broker := &lateBroker{MemoryBroker: sse.NewMemoryBroker()}
		broker.beforeTail = func() error { <-gate; return nil }
		h := newHubOn(t, broker, sse.Options{})
		synctest.Wait()
		if err := h.Health(); err == nil {
			t.Error("Health is nil while every publish and subscribe would wait")
		}
		close(gate)
		synctest.Wait()
		if err := h.Health(); err != nil {
			t.Errorf("Health: %v", err)
		}
	})
}

// TestReasonCounters holds that every reason there is is counted.
func TestReasonCounters(t *testing.T) {
	stats := newHub(t, sse.Options{}).Stats()
	for _, reason := range []sse.CloseReason{sse.CloseClient, sse.CloseDrain, sse.CloseExpired, sse.CloseBusy} {
		if _, ok := stats.Closed[reason]; !ok || !slices.Contains(sse.CloseReasons(), reason) {
			t.Errorf("%s is not counted", reason)
		}
	}
	for _, reason := range []sse.ResetReason{sse.ResetExpired, sse.ResetEpoch, sse.ResetLimit, sse.ResetUnknown} {
		if _, ok := stats.Resets[reason]; !ok || !slices.Contains(sse.ResetReasons(), reason) {
			t.Errorf("%s is not counted", reason)
		}
	}
}
