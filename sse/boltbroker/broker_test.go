package boltbroker

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

func TestMain(m *testing.M) { ssetest.Main(m) }

// open opens a record that is closed at the end of the test.
func open(t testing.TB, path string, options Options) *Broker {
	t.Helper()
	b, err := Open(path, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return b
}

func reopen(t testing.TB, b *Broker, options Options) *Broker {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, b.path, options)
}

func file(t testing.TB) string { return filepath.Join(t.TempDir(), "record.db") }

func publish(t testing.TB, b *Broker, data ...string) []sse.Position {
	t.Helper()
	events := make([]sse.Event, len(data))
	for i, d := range data {
		events[i] = sse.Event{Channels: []string{"a"}, Data: d}
	}
	positions, err := b.Publish(context.Background(), events)
	if err != nil {
		t.Fatal(err)
	}
	return positions
}

// stored returns the data of all entries that are kept.
func stored(t testing.TB, b *Broker) (data []string) {
	t.Helper()
	var after sse.Position
	for {
		page, err := b.Read(context.Background(), after, []string{"*"}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			data = append(data, e.Event.Data)
		}
		state, err := b.State(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		if page.Through == state.Newest {
			return data
		}
		after = page.Through
	}
}

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
