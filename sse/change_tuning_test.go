package sse_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// TestChangeOfTuning promises that a change for the streams of one tuning changes no
// open stream of another, and whichever connection while its client is gone.
func TestChangeOfTuning(t *testing.T) {
	h := newHub(t, sse.Options{})
	one, other := &sse.Tuning{Name: "one"}, &sse.Tuning{Name: "other"}
	s := subscribeWith(t, h, sse.SubscribeOptions{Connection: "c", Session: time.Minute, Channels: []string{"a"}, Tuning: one})
	if _, err := h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"b"}, Tuning: other.Name}); !errors.Is(err, sse.ErrNoConnection) {
		t.Errorf("a change for the streams of another tuning: %v", err)
	}
	for _, tuning := range []string{one.Name, ""} {
		changed(t, h, "c", sse.Change{Subscribe: []string{"b"}, Tuning: tuning})
	}
	s.Leave()
	if got := changed(t, h, "c", sse.Change{Subscribe: []string{"d"}, Tuning: other.Name}); !slices.Equal(got, []string{"a", "b", "d"}) {
		t.Errorf("while its client is gone the connection has %q", got)
	}
}
