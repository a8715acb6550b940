package sse_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// An array of 1,500 events on one channel, published in one request with the
// default settings, reached nobody: the count of 1,000 that is kept for replay
// evicted its beginning before any connected stream could read it, and they all
// got a reset. What is kept for replay must not take from those who listen.
func TestBatchReachesThoseWhoListen(t *testing.T) {
	for _, count := range []int{1, sse.DefaultHistoryCount} {
		h := newHub(t, sse.Options{HistoryCount: count})
		s := subscribe(t, h, sse.Latest(), "c")
		const n = 10_000
		events := make([]sse.Event, n)
		for i := range events {
			events[i] = sse.Event{Channels: []string{"c"}, Data: strings.Repeat("x", 60)}
		}
		if _, err := h.Publish(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
		checkWords(t, "connected", pullAll(t, s), words([]string{"hub:open@0 fresh"}, seqs(1, n)))
		joined := pullAll(t, subscribe(t, h, sse.Earliest(), "c"))
		checkWords(t, "joins", joined, words([]string{"hub:open@0 complete"}, seqs(n-count+1, n)))
	}
}

// Under memory pressure from a busy channel, the segment of a quiet one went
// first because it was begun long ago, although its newest event was younger
// than most of what was kept.
func TestBudgetEvictsTheOldestEvents(t *testing.T) {
	h := newHub(t, sse.Options{Memory: 8 * sse.SegmentBytes})
	quiet, busy := subscribe(t, h, sse.Latest(), "quiet"), strings.Repeat("x", sse.SegmentBytes/4)
	publish(t, h, "x", "quiet")
	for i := range 500 {
		publish(t, h, busy, "busy")
		if i%10 == 0 {
			publish(t, h, "x", "quiet")
		}
	}
	evicted, _ := h.Evicted("quiet")
	if evicted != 0 {
		t.Errorf("quiet was evicted up to %d; busy held older events", evicted)
	}
	if got := pullAll(t, quiet); len(got) != 52 {
		t.Errorf("the stream of quiet got %d frames, want 52: %.200q", len(got), got)
	}
}

// An event on two channels that was larger than the memory budget evicted its
// own first copy on arrival.
func TestNothingEvictsItself(t *testing.T) {
	h := newHub(t, sse.Options{Memory: 1000})
	a, b := subscribe(t, h, sse.Latest(), "a"), subscribe(t, h, sse.Latest(), "b")
	publish(t, h, strings.Repeat("x", 5000), "a", "b")
	for _, s := range []*sse.Subscriber{a, b} {
		checkWords(t, "connected", pullAll(t, s), []string{"hub:open@0 fresh", "1"})
	}
}

// The memory of a channel is part of the budget: half a million channels with
// one tiny event each took four times as much as was counted.
func TestBudgetCountsChannels(t *testing.T) {
	h := newHub(t, sse.Options{Memory: 1 << 20})
	for i := range 5000 {
		publish(t, h, "", fmt.Sprint("job-", i))
	}
	if stats := h.Stats(); stats.KeptBytes > 1<<20 || stats.Channels > 1<<20/sse.IdleCost {
		t.Errorf("%d channels in %d bytes", stats.Channels, stats.KeptBytes)
	}
}
