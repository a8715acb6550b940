package sse_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

var price = strings.Repeat("x", 150)

// TestDeliverAllocs holds that delivering an event to a subscriber that was
// caught up, on one channel, allocates nothing.
func TestDeliverAllocs(t *testing.T) {
	h := newHub(t, sse.Options{})
	for _, tc := range []struct {
		name  string
		items []string
	}{
		{"name", []string{"a"}},
		{"two names", []string{"a", "b"}},
		{"pattern", []string{"a*"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := subscribe(t, h, sse.Latest(), tc.items...)
			defer s.Leave()
			s.Attach(func() {}, nil)
			// The publishing is part of what is measured, as the difference to
			// a hub with a subscriber that reads nothing.
			events := 0
			event := sse.Event{Channels: []string{"a"}, Data: price}
			measure := func(deliver bool) float64 {
				return testing.AllocsPerRun(2000, func() {
					if _, err := h.Publish(t.Context(), event); err != nil {
						t.Fatal(err)
					}
					if deliver {
						events += s.Discard()
					}
				})
			}
			with := measure(true)
			if events != 2001 {
				t.Errorf("delivered %d events", events)
			}
			if without := measure(false); with > without {
				t.Errorf("publish and deliver allocate %v times, publish alone %v", with, without)
			}
		})
	}
}

// TestPublishAllocs holds that what a publish allocates does not grow with the
// number of subscribers.
func TestPublishAllocs(t *testing.T) {
	measure := func(subscribers int) float64 {
		h := newHub(t, sse.Options{})
		var all []*sse.Subscriber
		for range subscribers {
			s := subscribe(t, h, sse.Latest(), "a")
			s.Attach(func() {}, nil)
			s.Pull()
			all = append(all, s)
		}
		event := sse.Event{Channels: []string{"a"}, Data: price}
		publishDeliver := func() {
			if _, err := h.Publish(t.Context(), event); err != nil {
				t.Fatal(err)
			}
			for _, s := range all {
				s.Discard()
			}
		}
		for range 3 { // each subscriber makes its two lists once
			publishDeliver()
		}
		return testing.AllocsPerRun(200, publishDeliver)
	}
	one, many := measure(1), measure(1000)
	t.Logf("a publish allocates %v times", one)
	if many > one+1 {
		t.Errorf("with one subscriber a publish allocates %v times, with 1000 %v", one, many)
	}
}

// BenchmarkPublishChannels is a publish to one of many channels with a
// subscriber each: its cost is to follow the one, not the many.
func BenchmarkPublishChannels(b *testing.B) {
	for _, channels := range []int{1, 100_000} {
		b.Run(fmt.Sprint(channels), func(b *testing.B) {
			h := newHub(b, sse.Options{HistoryCount: 10})
			var event sse.Event
			var reader *sse.Subscriber
			for i := range channels {
				name := fmt.Sprint("user-", i)
				s := subscribe(b, h, sse.Latest(), name)
				if i == channels/2 {
					reader, event = s, sse.Event{Channels: []string{name}, Data: price}
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.Publish(b.Context(), event); err != nil {
					b.Fatal(err)
				}
				reader.Discard()
			}
		})
	}
}

// BenchmarkPublishSpread publishes to all of the channels in turn.
func BenchmarkPublishSpread(b *testing.B) {
	for _, channels := range []int{1, 1000, 100_000} {
		b.Run(fmt.Sprint(channels), func(b *testing.B) {
			h := newHub(b, sse.Options{HistoryCount: 10})
			events := make([]sse.Event, channels)
			readers := make([]*sse.Subscriber, channels)
			for i := range channels {
				name := fmt.Sprint("user-", i)
				readers[i] = subscribe(b, h, sse.Latest(), name)
				events[i] = sse.Event{Channels: []string{name}, Data: price}
			}
			i := 0
			for b.Loop() {
				if _, err := h.Publish(b.Context(), events[i]); err != nil {
					b.Fatal(err)
				}
				readers[i].Discard()
				i = (i + 1) % channels
			}
		})
	}
}

// BenchmarkFanOut is one event to many subscribers of its channel, with an
// engine that discards, on one goroutine: an op is an event, and ns/delivery its
// share.
func BenchmarkFanOut(b *testing.B) {
	for _, subscribers := range []int{1, 100, 5000} {
		b.Run(fmt.Sprint(subscribers), func(b *testing.B) {
			h := newHub(b, sse.Options{})
			var mu sync.Mutex
			var woken []*sse.Subscriber
			for range subscribers {
				s := subscribe(b, h, sse.Latest(), "a")
				s.Attach(func() { mu.Lock(); woken = append(woken, s); mu.Unlock() }, nil)
				s.Pull()
			}
			event := sse.Event{Channels: []string{"a"}, Data: price}
			delivered := 0
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h.Publish(b.Context(), event); err != nil {
					b.Fatal(err)
				}
				for _, s := range woken {
					delivered += s.Discard()
				}
				woken = woken[:0]
			}
			if delivered != b.N*subscribers {
				b.Errorf("delivered %d of %d", delivered, b.N*subscribers)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(delivered), "ns/delivery")
		})
	}
}

// BenchmarkEncode is the encoding of one event.
func BenchmarkEncode(b *testing.B) {
	for _, tc := range []struct {
		name  string
		event sse.Event
	}{
		{"line", sse.Event{Name: "price", Data: price}},
		{"lines", sse.Event{Data: strings.Repeat(price+"\n", 10)}},
		{"64KiB", sse.Event{Data: strings.Repeat("x", 64<<10)}},
	} {
		b.Run(tc.name, func(b *testing.B) {
			var frame []byte
			position := sse.Position{Epoch: "5t9k2ab", Seq: 1842}
			b.SetBytes(int64(len(tc.event.Data)))
			b.ReportAllocs()
			for b.Loop() {
				frame = sse.AppendEvent(frame[:0], position, &tc.event)
			}
		})
	}
}

// BenchmarkLagging is a pull of a subscriber of everything that lags behind on
// many channels: what one slow client costs.
func BenchmarkLagging(b *testing.B) {
	for _, channels := range []int{10, 1000, 100_000} {
		b.Run(fmt.Sprint(channels), func(b *testing.B) {
			h := newHub(b, sse.Options{})
			for i := range max(channels, 1000) {
				publish(b, h, price, fmt.Sprint("c", i%channels))
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				s := subscribeWith(b, h, sse.SubscribeOptions{Channels: []string{"*"}, Start: sse.Earliest(), ReplayLimit: -1})
				b.StartTimer()
				s.Pull()
				b.StopTimer()
				s.Leave()
				b.StartTimer()
			}
		})
	}
}
