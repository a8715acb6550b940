package torture

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

// A scenario is a configuration of the hub, and what it promises.
type scenario struct {
	name     string
	promises ssetest.HistoryOptions
	hubs     []string // blocks of the option; a reload changes from one to another
	replay   int      // events in one resume
	restarts int      // of ten things that happen to the server; the others are reloads
}

// recordFile stands for the file in which a record is kept.
const recordFile = "RECORD"

var scenarios = []scenario{
	{
		name:     "memory",
		promises: ssetest.HistoryOptions{KeepsAll: true, ReplaysAll: true},
		hubs: []string{
			"history 10000000 1h\n memory 8GiB",
			"history 20000000 2h\n memory 16GiB",
		},
		replay:   100_000_000,
		restarts: 7,
	},
	{
		name: "memory overrun",
		hubs: []string{
			"history 20 1h\n memory 1MB",
			"history 5 1h\n memory 2MB",
			"history 100 1s\n memory 1MB",
		},
		replay:   200,
		restarts: 1, // or nothing would have the time to expire
	},
	{
		// Memory holds little, so that replays come from the file.
		name:     "bolt",
		promises: ssetest.HistoryOptions{KeepsAll: true, Durable: true},
		hubs: []string{
			"broker bolt RECORD {\n max_size 100GiB\n max_events 10000000\n }\n history 20 1h\n memory 1MB",
			"broker bolt RECORD {\n max_size 200GiB\n max_events 10000000\n }\n history 2 1s\n memory 2MB",
		},
		replay:   100_000_000,
		restarts: 7,
	},
	{
		name:     "bolt overrun",
		promises: ssetest.HistoryOptions{Durable: true},
		hubs: []string{
			"broker bolt RECORD {\n max_events 500\n }\n history 20 1h\n memory 1MB",
			"broker bolt RECORD {\n max_size 1MB\n }\n history 100 1h\n memory 2MB",
			"broker bolt RECORD {\n max_age 2s\n }\n history 5 1s\n memory 1MB",
		},
		replay:   1000,
		restarts: 5,
	},
}

// Keepalives tell idle subscribers how far the record is, so that they can be
// known to have caught up. A reload that changes them reaches open streams.
var keepalives = []string{"200ms", "250ms"}

// A route in another place is another route, whose streams a reload ends.
var places = []string{"/events*", "/events* /elsewhere"}

// caddyfile makes one of the scenario's configurations.
func (w *world) caddyfile(random *rand.Rand) string {
	s := w.scenario
	return fmt.Sprintf(`{
	admin 127.0.0.1:%d
	persist_config off
	auto_https off
	default_bind 127.0.0.1
	log {
		level ERROR
	}
	servers {
		protocols h1 h2c
	}
	sse {
		%s
		drain 100ms
	}
}

http://127.0.0.1:%d {
	@events path %s
	sse @events {
		allow *
		keepalive %s
		limits {
			replay %d
		}
	}
	sse_api /sse* {
		unauthenticated
		max_body 8MiB
	}
	respond /%d 200
}
`, w.admin, strings.ReplaceAll(pick(random, s.hubs), recordFile, w.file), w.port, places[random.IntN(len(places))*random.IntN(2)], pick(random, keepalives), s.replay, random.Uint64())
}

func pick[T any](random *rand.Rand, from []T) T { return from[random.IntN(len(from))] }
