package boltbroker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// childVariable names what a copy of the test binary is to do instead of testing.
const childVariable = "BOLTBROKER_CHILD"

// children are what it can be, by name.
var children = map[string]func(path string) error{}

func TestMain(m *testing.M) {
	if child := children[os.Getenv(childVariable)]; child != nil {
		if err := child(os.Args[1]); err != nil {
			fmt.Println("child:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	ssetest.Main(m)
}

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

// random returns a source of random choices, whose seed is logged. That of a
// former run is taken from SSE_SEED.
func random(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if s, err := strconv.ParseUint(os.Getenv("SSE_SEED"), 10, 64); err == nil {
		seed = s
	}
	t.Logf("SSE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// eventually waits for what happens in the background.
func eventually(t testing.TB, what string, happened func() bool) {
	t.Helper()
	deadline := time.Now().Add(20 * time.Second)
	for !happened() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func publish(t testing.TB, b *Broker, data ...string) []sse.Position {
	t.Helper()
	events := make([]sse.Event, len(data))
	for i, d := range data {
		events[i] = sse.Event{Channels: []string{"a"}, Data: d}
	}
	return publishEvents(t, b, events...)
}

func publishEvents(t testing.TB, b *Broker, events ...sse.Event) []sse.Position {
	t.Helper()
	positions, err := b.Publish(context.Background(), events)
	if err != nil {
		t.Fatal(err)
	}
	return positions
}

func state(t testing.TB, b *Broker) sse.State {
	t.Helper()
	s, err := b.State(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// entries returns all entries that are kept.
func entries(t testing.TB, b *Broker) (found []sse.Entry) {
	t.Helper()
	var after sse.Position
	for {
		page, err := b.Read(context.Background(), after, []string{"*"}, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, page.Entries...)
		if page.Through == state(t, b).Newest {
			return found
		}
		after = page.Through
	}
}

// stored returns the data of all entries that are kept.
func stored(t testing.TB, b *Broker) (data []string) {
	t.Helper()
	for _, e := range entries(t, b) {
		data = append(data, e.Event.Data)
	}
	return data
}

func withID(id, data string) sse.Event {
	return sse.Event{Channels: []string{"a"}, ID: id, Data: data}
}
