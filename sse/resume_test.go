package sse_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// TestResume holds what a subscriber is told and given, for each way to begin.
// The record: a1 has 1 and 4, a2 has 2 and 5, b has 3 and 6, a1 and b share 7,
// x1 has 9 to 13 of which the last three are kept, ab has 14, abc 15, another 8
// and 16.
func TestResume(t *testing.T) {
	h := newHub(t, sse.Options{HistoryCount: 3})
	for _, channels := range [][]string{{"a1"}, {"a2"}, {"b"}, {"a1"}, {"a2"}, {"b"}, {"a1", "b"}, {"other"}} {
		publishN(t, h, 1, channels...)
	}
	for range 5 { // x1 has 9 to 13, of which 9 and 10 are not kept
		publishN(t, h, 1, "x1")
	}
	publishN(t, h, 1, "ab")  // 14
	publishN(t, h, 1, "abc") // 15
	publishN(t, h, 1, "other")
	const head = 16
	for _, tc := range []struct {
		name     string
		channels []string
		start    sse.Start
		limit    int
		want     []string
	}{
		{"fresh", []string{"a1"}, sse.Latest(), 0, []string{"hub:open@16 fresh"}},
		{"zero start", []string{"a1"}, sse.Start{}, 0, []string{"hub:open@16 fresh"}},
		{"at the head", []string{"a1"}, after(h, head), 0, []string{"hub:open@16 complete"}},
		{"nothing missed", []string{"a1"}, after(h, 7), 0, []string{"hub:open@7 complete"}},
		{"complete", []string{"a1"}, after(h, 1), 0, []string{"hub:open@1 complete", "4", "7"}},
		{"from the beginning", []string{"a1"}, after(h, 0), 0, []string{"hub:open@0 complete", "1", "4", "7"}},
		{"between", []string{"a1"}, after(h, 5), 0, []string{"hub:open@5 complete", "7"}},
		{"two channels, merged", []string{"a2", "a1"}, after(h, 0), 0, []string{"hub:open@0 complete", "1", "2", "4", "5", "7"}},
		{"shared event once", []string{"a1", "b"}, after(h, 3), 0, []string{"hub:open@3 complete", "4", "6", "7"}},
		{"shared event by pattern and name", []string{"a*", "b"}, after(h, 5), 0, []string{"hub:open@5 complete", "6", "7", "14", "15"}},
		{"channel without events", []string{"never"}, after(h, 0), 0, []string{"hub:open@0 complete"}},
		{"named twice", []string{"a1", "a1"}, after(h, 3), 0, []string{"hub:open@3 complete", "4", "7"}},
		{"overlapping patterns", []string{"a*", "ab*", "abc", "*"}, after(h, 13), 0, []string{"hub:open@13 complete", "14", "15", "16"}},
		{"pattern with holes between", []string{"a*"}, after(h, 0), 0, []string{"hub:open@0 complete", "1", "2", "4", "5", "7", "14", "15"}},
		{"earliest", []string{"a1"}, sse.Earliest(), 0, []string{"hub:open@0 complete", "1", "4", "7"}},
		{"earliest of what is kept", []string{"x1", "a2"}, sse.Earliest(), 0, []string{"hub:open@0 complete", "2", "5", "11", "12", "13"}},
		{"earliest by pattern", []string{"x*"}, sse.Earliest(), 0, []string{"hub:open@0 complete", "11", "12", "13"}},
		{"expired", []string{"x1"}, after(h, 9), 0, []string{"hub:open@16 reset x1=expired"}},
		{"expired in one of two", []string{"x1", "a2"}, after(h, 4), 0, []string{"hub:open@4 reset x1=expired", "5"}},
		{"expired in a pattern of two", []string{"x*", "a*"}, after(h, 4), 0, []string{"hub:open@4 reset x*=expired", "5", "7", "14", "15"}},
		{"a pattern is one", []string{"*"}, after(h, 9), 0, []string{"hub:open@16 reset *=expired"}},
		{"another epoch", []string{"a1", "b*"}, sse.After(sse.Position{Epoch: "other", Seq: 1}), 0, []string{"hub:open@16 reset a1=epoch b*=epoch"}},
		{"another epoch, ahead", []string{"a1"}, sse.After(sse.Position{Epoch: "other", Seq: 99}), 0, []string{"hub:open@16 reset a1=epoch"}},
		{"no position", []string{"a1"}, sse.After(sse.Position{}), 0, []string{"hub:open@16 reset a1=epoch"}},
		{"ahead of the head", []string{"a1", "b"}, after(h, head+1), 0, []string{"hub:open@16 reset a1=unknown b=unknown"}},
		{"unknown", []string{"a1"}, sse.Unknown(), 0, []string{"hub:open@16 reset a1=unknown"}},
		{"at the limit", []string{"a1"}, after(h, 0), 3, []string{"hub:open@0 complete", "1", "4", "7"}},
		{"over the limit", []string{"a1"}, after(h, 0), 2, []string{"hub:open@16 reset a1=limit"}},
		{"no limit", []string{"a1"}, after(h, 0), -1, []string{"hub:open@0 complete", "1", "4", "7"}},
		{"two at the limit", []string{"a1", "a2"}, after(h, 0), 5, []string{"hub:open@0 complete", "1", "2", "4", "5", "7"}},
		{"two over the limit", []string{"a1", "a2"}, after(h, 0), 4, []string{"hub:open@16 reset a2=limit a1=limit"}},
		{"over the limit, one without news", []string{"a1", "never"}, after(h, 0), 2, []string{"hub:open@0 reset a1=limit"}},
		{"the limit counts an event once", []string{"a1", "b"}, after(h, 3), 3, []string{"hub:open@3 complete", "4", "6", "7"}},
		{"the limit counts what is sent", []string{"x1", "a2"}, after(h, 4), 1, []string{"hub:open@4 reset x1=expired", "5"}},
		{"earliest over the limit", []string{"x1"}, sse.Earliest(), 2, []string{"hub:open@16 reset x1=limit"}},
		{"earliest at the limit", []string{"x1"}, sse.Earliest(), 3, []string{"hub:open@0 complete", "11", "12", "13"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := subscribeWith(t, h, sse.SubscribeOptions{Channels: tc.channels, Start: tc.start, ReplayLimit: tc.limit})
			defer s.Leave()
			got := pullAll(t, s)
			if !slices.Equal(got, tc.want) && !sameResets(got, tc.want) {
				t.Errorf("\n got %q\nwant %q", got, tc.want)
			}
		})
	}
}

// sameResets compares but for the order in which a first frame names resets.
func sameResets(got, want []string) bool {
	if len(got) != len(want) || !slices.Equal(got[1:], want[1:]) {
		return false
	}
	letters := func(s string) []byte { b := []byte(s); slices.Sort(b); return b }
	return slices.Equal(letters(got[0]), letters(want[0]))
}

// TestResumeContinues holds that a channel that was reset goes on behind the
// head, and that live events follow a replay without a seam.
func TestResumeContinues(t *testing.T) {
	h := newHub(t, sse.Options{HistoryCount: 2})
	publishN(t, h, 4, "gone")  // 1..4
	publishN(t, h, 2, "whole") // 5, 6
	s := subscribe(t, h, after(h, 1), "gone", "whole")
	publishN(t, h, 1, "gone") // 7, before the first pull
	publishN(t, h, 1, "whole")
	checkWords(t, "replay and live", pullAll(t, s), []string{"hub:open@1 reset gone=expired", "5", "6", "7", "8"})
	publishN(t, h, 1, "gone", "whole")
	checkWords(t, "then", summary(t, pending(t, s)), []string{"9"})

	// A reset of a part, dropped before anything came, is told again.
	checkWords(t, "again", resumed(t, h, 1, "gone", "whole"), []string{"hub:open@9 reset gone=expired whole=expired"})
}

// TestOpenFrame holds the first frame's fields.
func TestOpenFrame(t *testing.T) {
	h := newHub(t, sse.Options{})
	publishN(t, h, 7, "a")
	asked := []string{"a", "a*"}
	retries := make(map[time.Duration]bool)
	for range 30 {
		s := subscribeWith(t, h, sse.SubscribeOptions{Connection: "<id>\u2028", Channels: append(asked, "a"), Retry: 2 * time.Second})
		frame := s.OpenFrame()
		b := blocks(t, frame)[0]
		told := b.state(t)
		if !b.is("hub:open") || b.id != at(h, 7) || told.Connection != "<id>\u2028" || !slices.Equal(told.Channels, asked) || told.Resume != sse.ResumeFresh {
			t.Fatalf("the first frame is %q", frame)
		}
		var fields map[string]any
		if err := json.Unmarshal([]byte(b.msg.Data), &fields); err != nil || len(fields) != 3 {
			t.Errorf("the data is %s", b.msg.Data)
		}
		var retry int
		if _, err := fmt.Sscanf(string(frame), "retry: %d\n", &retry); err != nil || retry < 2000 || retry > 3000 {
			t.Errorf("retry is %d of 2000; %v", retry, err)
		}
		retries[time.Duration(retry)] = true
		s.Leave()
	}
	if len(retries) < 10 {
		t.Errorf("30 streams draw %d retries", len(retries))
	}
}

// TestSubscribeErrors holds which subscriptions are refused, and why.
func TestSubscribeErrors(t *testing.T) {
	h := newHub(t, sse.Options{})
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, tc := range []struct {
		name     string
		channels []string
		want     error
	}{
		{"none", nil, sse.ErrChannel},
		{"malformed", []string{"a", "a*b"}, sse.ErrChannel},
		{"empty", []string{""}, sse.ErrChannel},
	} {
		if s, err := h.Subscribe(t.Context(), sse.SubscribeOptions{Channels: tc.channels}); !errors.Is(err, tc.want) || s != nil {
			t.Errorf("%s: %v, %v", tc.name, s, err)
		}
	}
	if got := h.Stats(); got.Streams+got.Channels+got.Patterns > 0 {
		t.Errorf("refused subscriptions leave %+v", got)
	}
	h.Drain(t.Context(), 0)
	if _, err := h.Subscribe(t.Context(), sse.SubscribeOptions{Channels: []string{"a"}}); !errors.Is(err, sse.ErrDraining) {
		t.Errorf("while draining: %v", err)
	}
	if err := h.Health(); !errors.Is(err, sse.ErrDraining) {
		t.Errorf("Health while draining: %v", err)
	}
	h.Close()
	if _, err := h.Subscribe(gone, sse.SubscribeOptions{Channels: []string{"a"}}); !errors.Is(err, sse.ErrClosed) && !errors.Is(err, context.Canceled) {
		t.Errorf("when closed: %v", err)
	}
	if _, err := h.Publish(t.Context(), sse.Event{Channels: []string{"a"}}); !errors.Is(err, sse.ErrClosed) {
		t.Errorf("Publish when closed: %v", err)
	}
	if err := h.Health(); !errors.Is(err, sse.ErrClosed) {
		t.Errorf("Health when closed: %v", err)
	}
}
