package boltbroker

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// BenchmarkPublish shows what a commit costs, and what it costs each of many
// who share it.
func BenchmarkPublish(b *testing.B) {
	for _, publishers := range []int{1, 8, 64, 256} {
		b.Run(fmt.Sprint(publishers), func(b *testing.B) {
			benchmarkPublish(b, open(b, file(b), Options{}), publishers)
		})
		b.Run(fmt.Sprint(publishers, " on a slow disk"), func(b *testing.B) {
			broker := open(b, file(b), Options{})
			onDisk(broker).set(slow)
			benchmarkPublish(b, broker, publishers)
		})
	}
}

func benchmarkPublish(b *testing.B, broker *Broker, publishers int) {
	events := []sse.Event{{Channels: []string{"a"}, Data: string(make([]byte, 150))}}
	per := max(publishers/runtime.GOMAXPROCS(0), 1)
	if publishers == 1 {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	}
	b.SetParallelism(per)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := broker.Publish(context.Background(), events); err != nil {
				b.Error(err)
				return
			}
		}
	})
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
