package redisbroker_test

import (
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// startHub starts a hub with a broker of its own, as each node has.
func startHub(t *testing.T, url string) *sse.Hub {
	t.Helper()
	b, err := redisbroker.Open(redisbroker.Options{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	h, err := sse.NewHub(t.Context(), b, sse.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.Close()
		if err := b.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return h
}

// stream serves a stream of a connection on channel a, and returns what it ends with.
func stream(t *testing.T, h *sse.Hub, o sse.SubscribeOptions) <-chan sse.End {
	t.Helper()
	o.Channels = []string{"a"}
	s, err := h.Subscribe(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	end := make(chan sse.End, 1)
	go func() { end <- s.Stream(t.Context(), httptest.NewRecorder(), new(sse.Tuning)) }()
	return end
}

func endsAs(t *testing.T, ended <-chan sse.End, want sse.CloseReason) {
	t.Helper()
	select {
	case end := <-ended:
		if end.Reason != want {
			t.Errorf("it ended %+v, want %s", end, want)
		}
	case <-time.After(patience):
		t.Errorf("it does not end, want %s", want)
	}
}

// TestHubs promises that what concerns streams reaches those of all nodes: lists, counts,
// changes, the end, and the way of a session to the node that its client comes back to.
func TestHubs(t *testing.T) {
	s := redistest.Start(t)
	here, there := startHub(t, s.URL()), startHub(t, s.URL())
	end := stream(t, there, sse.SubscribeOptions{Connection: "c", User: "alice", Session: time.Minute})

	infos, err := here.Connections(t.Context(), sse.Selection{User: "alice"}, "", 10)
	if err != nil || len(infos) != 1 || infos[0].Connection != "c" || infos[0].Opened.IsZero() {
		t.Errorf("there are %+v, %v", infos, err)
	}
	if counts, err := here.Count(t.Context(), "a", "b"); err != nil || !slices.Equal(counts, []int{1, 0}) {
		t.Errorf("they have %v subscribers, %v", counts, err)
	}
	receipts, err := here.Publish(t.Context(), sse.Event{Channels: []string{"a"}, Data: "1"})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := here.Assign(t.Context(), "c", sse.Change{Subscribe: []string{"b"}, Start: sse.Earliest()}); err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the stream has %q, %v", got, err)
	}

	back := sse.SubscribeOptions{Connection: "c", User: "alice", Session: time.Minute, Start: sse.After(receipts[0].Position)}
	moved := stream(t, here, back)
	endsAs(t, end, sse.CloseReplaced)
	if infos, err := there.Connections(t.Context(), sse.Selection{Channel: "b"}, "", 10); err != nil || len(infos) != 1 {
		t.Errorf("after the move there are %+v, %v", infos, err)
	}
	if n, err := there.Kick(t.Context(), sse.Selection{Channel: "b"}); n != 1 || err != nil {
		t.Errorf("%d were kicked, %v", n, err)
	}
	endsAs(t, moved, sse.CloseKicked)
}
