package redisbroker_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// What a publish costs, by how many publish at once.
func BenchmarkPublish(b *testing.B) {
	s := redistest.Start(b)
	for _, publishers := range []int{1, 16, 256} {
		b.Run(fmt.Sprint("publishers=", publishers), func(b *testing.B) {
			broker, err := redisbroker.Open(redisbroker.Options{URL: s.URL(), Hub: fmt.Sprint(publishers)})
			if err != nil {
				b.Fatal(err)
			}
			defer broker.Close()
			events := []sse.Event{on("stocks-ACME", strings.Repeat("x", 150))}
			b.SetParallelism(publishers)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := broker.Publish(context.Background(), events); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

// What a page costs, of all channels and of one among many.
func BenchmarkRead(b *testing.B) {
	s := redistest.Start(b)
	broker, err := redisbroker.Open(redisbroker.Options{URL: s.URL()})
	if err != nil {
		b.Fatal(err)
	}
	defer broker.Close()
	for range 20 {
		events := make([]sse.Event, 1000)
		for i := range events {
			events[i] = on(fmt.Sprint("channel-", i), strings.Repeat("x", 150))
		}
		if _, err := broker.Publish(context.Background(), events); err != nil {
			b.Fatal(err)
		}
	}
	for _, channels := range []string{"*", "channel-7"} {
		b.Run(channels, func(b *testing.B) {
			for b.Loop() {
				if _, err := broker.Read(context.Background(), sse.Position{}, []string{channels}, 128<<10); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
