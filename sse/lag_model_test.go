package sse_test

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// TestModelOfSlow holds the promises of [TestModel] with streams that may not lag
// behind far: whoever is skipped ahead is told, and whoever is cut off misses
// nothing that is kept, and is not reset but when it comes back.
func TestModelOfSlow(t *testing.T) {
	inMemory := func() sse.Broker { return sse.NewMemoryBroker() }
	recorded := func() sse.Broker { return newKeeper() }
	for _, tc := range []struct {
		name    string
		options sse.Options
		names   int
		keepAll bool
		broker  func() sse.Broker
	}{
		{"one channel", sse.Options{}, 1, true, inMemory},
		{"few channels", sse.Options{}, 5, true, inMemory},
		{"many channels", sse.Options{}, 90, true, inMemory},
		{"few channels, evicted", sse.Options{HistoryCount: 1, Memory: 40 << 10}, 5, false, inMemory},
		{"few channels, recorded", sse.Options{Memory: 40 << 10}, 5, true, recorded},
		{"many channels, forgotten, recorded", sse.Options{Memory: 20 << 10}, 90, true, recorded},
		{"many channels, forgotten, trimmed", sse.Options{Memory: 20 << 10}, 90, false, recorded},
	} {
		for slow, name := range map[sse.Slow]string{sse.SlowReset: "reset", sse.SlowDisconnect: "disconnect"} {
			t.Run(tc.name+", "+name, func(t *testing.T) {
				t.Parallel()
				broker := tc.broker()
				w := newWorld(t, newHubOn(t, broker, tc.options), tc.names)
				w.keepAll, w.bursts, w.chaos = tc.keepAll, 20, !tc.keepAll || tc.options.Memory > 0
				w.stream = sse.StreamOptions{Lag: 20_000, Slow: slow}
				if k, ok := broker.(*keeper); ok && !tc.keepAll {
					w.trim = k.trim
				}
				w.run()
			})
		}
	}
}
