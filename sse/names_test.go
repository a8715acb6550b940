package sse_test

import (
	"runtime"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// TestNamesKeepNoRequests: the names of a form's channels are parts of the text
// of the whole request. A hub that remembered a channel, or its end, held on to
// a megabyte for each that the budget counted as a few hundred bytes.
func TestNamesKeepNoRequests(t *testing.T) {
	const requests, size = 100, 1 << 20
	for _, ends := range []sse.Ending{sse.EndNone, sse.EndOnly} {
		h := newHub(t, sse.Options{})
		before := heap()
		for i := range requests {
			body := strings.Repeat(string(rune('a'+i%26)), 2+i/26) + strings.Repeat(" ", size)
			name := body[:2+i/26]
			if _, err := h.Publish(t.Context(), sse.Event{Channels: []string{name}, End: ends}); err != nil {
				t.Fatal(err)
			}
		}
		if grown := heap() - before; grown > requests*size/4 {
			t.Errorf("the hub holds %d bytes of %d requests", grown, requests)
		}
		runtime.KeepAlive(h)
	}
}

func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
