package boltbroker

import (
	"context"
	"fmt"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// BenchmarkPublish shows what a commit costs, and what it costs each of many
// who share it.
func BenchmarkPublish(b *testing.B) {
	for _, publishers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprint(publishers), func(b *testing.B) {
			broker := open(b, file(b), Options{})
			events := []sse.Event{{Channels: []string{"a"}, Data: string(make([]byte, 150))}}
			b.SetParallelism((publishers + 1) / 2) // of two processors
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := broker.Publish(context.Background(), events); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

// BenchmarkBatch shows what an event costs in arrays.
func BenchmarkBatch(b *testing.B) {
	for _, ids := range []string{"without ids", "with ids"} {
		b.Run(ids, func(b *testing.B) {
			broker := open(b, file(b), Options{MaxEvents: 100_000})
			b.ReportAllocs()
			n := 0
			for b.Loop() {
				events := make([]sse.Event, 1000)
				for i := range events {
					n++
					events[i] = sse.Event{Channels: []string{"a"}, Data: string(make([]byte, 150))}
					if ids == "with ids" {
						events[i].ID = fmt.Sprint("id", n)
					}
				}
				if _, err := broker.Publish(context.Background(), events); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
