package sse_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// gone is a hub on a record, with 100 events on a and b in turn, none of which
// is in memory any more.
func gone(t *testing.T) (*keeper, *sse.Hub) {
	t.Helper()
	k := newKeeper()
	h := newHubOn(t, k, sse.Options{})
	for range 50 {
		publishN(t, h, 1, "a")
		publishN(t, h, 1, "b")
	}
	h.EvictAll()
	return k, h
}

// odd returns the odd numbers, which are the seqs of channel a.
func odd(from, to int) (words []string) {
	for i := from | 1; i <= to; i += 2 {
		words = append(words, fmt.Sprint(i))
	}
	return words
}

// cursor is what moves a client behind a page that ends with events of others.
func cursor(seq int) []string { return []string{fmt.Sprintf("keepalive@%d", seq)} }

func withoutCursors(all []string) []string {
	return slices.DeleteFunc(all, func(word string) bool { return strings.HasPrefix(word, "keepalive@") })
}

// TestCursorAfterReplay: a stream whose replay from the record ended with
// events of others stood at the head for the hub, and before it for its client.
// No keepalive told the client so until the next event. It came back from there,
// and was reset for events that it never asked for, once these were gone.
func TestCursorAfterReplay(t *testing.T) {
	_, h := gone(t)
	for _, item := range []string{"a", "b", "c", "*"} {
		s := subscribe(t, h, after(h, 0), item)
		var last sse.Position
		for _, b := range blocks(t, slices.Concat(s.OpenFrame(), pending(t, s), s.KeepaliveFrame())) {
			if !b.id.IsZero() {
				last = b.id
			}
		}
		if last != at(h, 100) {
			t.Errorf("the client of %q is left at %s", item, last)
		}
	}
}

// TestResumeFromRecord holds that one who comes back gets what memory has lost
// from the record, in order, for names and patterns, and then goes on live.
func TestResumeFromRecord(t *testing.T) {
	for _, tc := range []struct {
		name  string
		start func(*sse.Hub) sse.Start
		items []string
		want  []string
	}{
		{"all of one", func(h *sse.Hub) sse.Start { return after(h, 0) }, []string{"a"}, odd(1, 100)},
		{"the rest of one", func(h *sse.Hub) sse.Start { return after(h, 61) }, []string{"a"}, odd(62, 100)},
		{"both", func(h *sse.Hub) sse.Start { return after(h, 10) }, []string{"a", "b"}, seqs(11, 100)},
		{"a pattern", func(h *sse.Hub) sse.Start { return after(h, 90) }, []string{"*"}, seqs(91, 100)},
		{"the earliest", func(*sse.Hub) sse.Start { return sse.Earliest() }, []string{"a"}, odd(1, 100)},
		{"the earliest by a pattern", func(*sse.Hub) sse.Start { return sse.Earliest() }, []string{"*"}, seqs(1, 100)},
		{"nothing missed", func(h *sse.Hub) sse.Start { return after(h, 99) }, []string{"a"}, nil},
		{"a channel without events", func(h *sse.Hub) sse.Start { return after(h, 5) }, []string{"c"}, nil},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for _, restarted := range []string{"running", "restarted"} {
				k, h := gone(t)
				if restarted == "restarted" {
					h = restart(t, k, h, sse.Options{})
					h.EvictAll()
				}
				s := subscribe(t, h, tc.start(h), tc.items...)
				open := fmt.Sprintf("hub:open@%d complete", openedAt(t, s))
				checkWords(t, restarted, withoutCursors(pullAll(t, s)), words([]string{open}, tc.want))
				publish(t, h, "not asked for", "other")
				publish(t, h, "live", strings.ReplaceAll(tc.items[0], "*", "a"))
				got := summary(t, pending(t, s))
				if len(got) == 0 || got[len(got)-1] != "102" {
					t.Errorf("%s: then %v, want 102 at the end", restarted, got)
				}
			}
		})
	}
}

func openedAt(t *testing.T, s *sse.Subscriber) uint64 {
	t.Helper()
	return blocks(t, s.OpenFrame())[0].id.Seq
}

// TestReplayFromMemory holds that the record is not read for what memory has,
// before and after a restart.
func TestReplayFromMemory(t *testing.T) {
	k := newKeeper()
	h := newHubOn(t, k, sse.Options{})
	publishN(t, h, 100, "a")
	h = restart(t, k, h, sse.Options{})
	for _, start := range []sse.Start{after(h, 0), after(h, 50), sse.Earliest(), sse.Latest()} {
		for _, item := range []string{"a", "*", "b"} {
			pending(t, subscribe(t, h, start, item))
		}
	}
	if counts, reads := k.asked(); counts+reads > 0 {
		t.Errorf("the record was counted %d times and read %d times", counts, reads)
	}
	if n := h.Stats().Published; n != 0 {
		t.Errorf("%d events count as published that were taken in at the start", n)
	}
}

// TestSeam holds that nothing is lost and nothing comes twice where a replay
// from the record meets memory, whatever is published or evicted meanwhile.
func TestSeam(t *testing.T) {
	for _, tc := range []struct {
		name string
		act  func(t *testing.T, h *sse.Hub)
	}{
		{"nothing", func(*testing.T, *sse.Hub) {}},
		{"published", func(t *testing.T, h *sse.Hub) { publishN(t, h, 1, "a") }},
		{"published and evicted", func(t *testing.T, h *sse.Hub) { publishN(t, h, 3, "a"); h.EvictAll() }},
		{"evicted and published", func(t *testing.T, h *sse.Hub) { h.EvictAll(); publishN(t, h, 2, "a", "b") }},
		{"more than is remembered", func(t *testing.T, h *sse.Hub) {
			for i := range 2 * sse.MaxDirty {
				publish(t, h, "x", "a", fmt.Sprint("a", i))
			}
		}},
	} {
		for _, hook := range []string{"count", "read", "pull"} {
			t.Run(tc.name+" at "+hook, func(t *testing.T) {
				k, h := gone(t)
				left := 25 // else it would never end
				act := func() {
					if left--; left >= 0 {
						tc.act(t, h)
					}
				}
				switch hook {
				case "count":
					k.beforeCount = act
				case "read":
					k.beforeRead = act
				}
				s := subscribe(t, h, after(h, 0), "a*")
				var got []uint64
				for {
					if hook == "pull" {
						act()
					}
					frames, _, _ := s.Pull()
					if len(frames) == 0 {
						break
					}
					for _, b := range blocks(t, frames) {
						if b.is("hub:reset") {
							t.Fatalf("reset %v", b.state(t))
						}
						if !b.is("") {
							got = append(got, b.id.Seq)
						}
					}
				}
				k.mu.Lock()
				defer k.mu.Unlock()
				want, _ := k.kept(sse.Position{}, []string{"a*"})
				if !slices.EqualFunc(got, want, func(seq uint64, e sse.Entry) bool { return seq == e.Position.Seq }) {
					t.Errorf("got %d events, want %d: %v", len(got), len(want), got)
				}
			})
		}
	}
}

// TestTrimmedWhileReplaying holds, at each step of a replay, that a record
// which gives up what comes next makes a reset, never a hole, and that the
// client goes on at the head.
func TestTrimmedWhileReplaying(t *testing.T) {
	for _, hook := range []string{"count", "read"} {
		for step := range 6 {
			t.Run(fmt.Sprintf("at %s %d", hook, step), func(t *testing.T) {
				k, h := gone(t)
				act := func() {
					if step--; step == -1 {
						k.trim(95)
					}
				}
				start := after(h, 3)
				k.beforeRead = act
				if hook == "count" {
					k.beforeRead = nil
					k.beforeCount = act
				}
				s := subscribe(t, h, start, "a")
				open := blocks(t, s.OpenFrame())[0]
				stream := pending(t, s)
				publish(t, h, "live", "a")
				stream = append(stream, pending(t, s)...)

				last, reset := open.id.Seq, len(open.state(t).Reset) > 0
				for _, b := range blocks(t, stream) {
					if b.is("hub:reset") {
						if want := "reset a=expired"; b.state(t).String() != want {
							t.Errorf("told %s, want %s", b.state(t), want)
						}
						reset = true
					} else if want := (last + 1) | 1; !b.is("") && b.id.Seq != want && !reset {
						t.Errorf("event %d after %d without a reset", b.id.Seq, last)
					}
					last = b.id.Seq
				}
				if last != 101 {
					t.Errorf("the last is %d, want 101", last)
				}
				if reached := step < 0; reset != reached {
					t.Errorf("reset: %v, trimmed: %v", reset, reached)
				}
			})
		}
	}
}

// TestPartlyReset holds that only what has a hole is reset: channels of which
// memory has everything go on from there.
func TestPartlyReset(t *testing.T) {
	k, h := gone(t)
	publishN(t, h, 2, "c")
	k.trim(50)
	s := subscribe(t, h, after(h, 10), "a", "c")
	checkWords(t, "first", pullAll(t, s), []string{"hub:open@10 reset a=expired", "101", "102"})
	publishN(t, h, 1, "a")
	checkWords(t, "then", summary(t, pending(t, s)), []string{"103"})
}

// TestReplayLimitOfRecord holds that a client which missed more than one replay
// may hold is told so, be it when it comes back or when it falls behind.
func TestReplayLimitOfRecord(t *testing.T) {
	_, h := gone(t)
	for _, tc := range []struct {
		limit int
		want  []string
	}{
		{49, []string{"hub:open@100 reset a=limit"}},
		{50, words([]string{"hub:open@0 complete"}, odd(1, 100), cursor(100))},
		{-1, words([]string{"hub:open@0 complete"}, odd(1, 100), cursor(100))},
	} {
		s := subscribeWith(t, h, sse.SubscribeOptions{Channels: []string{"a"}, Start: after(h, 0), ReplayLimit: tc.limit})
		checkWords(t, fmt.Sprint("limit ", tc.limit), pullAll(t, s), tc.want)
	}
	slow := subscribeWith(t, h, sse.SubscribeOptions{Channels: []string{"a"}, ReplayLimit: 3})
	checkWords(t, "slow", pullAll(t, slow), []string{"hub:open@100 fresh"})
	publishN(t, h, 4, "a")
	h.EvictAll()
	checkWords(t, "slow, then", summary(t, pending(t, slow)), []string{"hub:reset@104 reset a=limit"})
	publishN(t, h, 3, "a")
	h.EvictAll()
	checkWords(t, "slow, at last", summary(t, pending(t, slow)), seqs(105, 107))
}

// TestEarliestOfRecord holds that the earliest of a channel that is whole in
// memory is what the settings keep, while others are read from the record.
func TestEarliestOfRecord(t *testing.T) {
	k := newKeeper()
	h := newHubOn(t, k, sse.Options{HistoryCount: 10})
	publishN(t, h, 5, "quiet")
	publishN(t, h, 50, "busy")
	h = restart(t, k, h, sse.Options{HistoryCount: 10})
	checkWords(t, "in memory", pullAll(t, subscribe(t, h, sse.Earliest(), "quiet", "busy")),
		words([]string{"hub:open@0 complete"}, seqs(1, 5), seqs(46, 55)))
	h.EvictAll()
	publishN(t, h, 10, "busy")
	checkWords(t, "in the record", pullAll(t, subscribe(t, h, sse.Earliest(), "quiet", "busy")),
		words([]string{"hub:open@0 complete"}, seqs(1, 5), cursor(7), seqs(56, 65)))
}

// TestWarmStart holds that a hub which starts on a record takes in the newest
// part, and reads the rest when somebody needs it.
func TestWarmStart(t *testing.T) {
	k := newKeeper()
	k.most = 1000
	h := newHubOn(t, k, sse.Options{})
	publishN(t, h, 1, "old")
	events := make([]sse.Event, sse.WarmEvents)
	for i := range events {
		events[i] = sse.Event{Channels: []string{"new"}}
	}
	if _, err := h.Publish(t.Context(), events...); err != nil {
		t.Fatal(err)
	}
	h = restart(t, k, h, sse.Options{HistoryCount: sse.WarmEvents})
	checkWords(t, "old", pullAll(t, subscribe(t, h, after(h, 0), "old")),
		words([]string{"hub:open@0 complete", "1"}, cursor(sse.WarmEvents+1)))
	checkWords(t, "nothing missed", pullAll(t, subscribe(t, h, after(h, 1), "old")), []string{"hub:open@1 complete"})
	_, before := k.asked()
	checkWords(t, "new", pullAll(t, subscribe(t, h, after(h, sse.WarmEvents-2), "new")),
		words([]string{fmt.Sprintf("hub:open@%d complete", sse.WarmEvents-2)}, seqs(sse.WarmEvents-1, sse.WarmEvents+1)))
	if _, reads := k.asked(); reads != before {
		t.Errorf("the record was read %d times for what is in memory", reads-before)
	}
}

// TestRecordFails holds that a client is neither reset nor left with a hole
// when the record cannot be read for now: it is sent away for a while.
func TestRecordFails(t *testing.T) {
	k, h := gone(t)
	k.failing = errors.New("disk on fire")
	_, err := h.Subscribe(t.Context(), sse.SubscribeOptions{Channels: []string{"a"}, Start: after(h, 1)})
	if !errors.Is(err, k.failing) {
		t.Errorf("Subscribe: %v", err)
	}
	if n := h.Stats().Streams; n != 0 {
		t.Errorf("%d streams are left", n)
	}
	if err := h.Health(); !errors.Is(err, k.failing) {
		t.Errorf("Health: %v", err)
	}
	k.failing = nil
	s := subscribe(t, h, after(h, 1), "a")
	k.failing = errors.New("disk on fire")
	if _, _, closing := s.Pull(); closing != sse.CloseBusy {
		t.Errorf("the stream ends with %q", closing)
	}
}

// TestReplayHasBackpressure holds that the record is read no faster than the
// client takes what was read.
func TestReplayHasBackpressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k, h := gone(t)
		s := subscribe(t, h, after(h, 0), "*")
		gate := make(chan struct{})
		w := &recorder{onWrite: func(p []byte) (int, error) { <-gate; return len(p), nil }}
		done := make(chan struct{})
		go func() {
			defer close(done)
			s.Stream(t.Context(), w, sse.NewTuning(sse.StreamOptions{Keepalive: -1}))
		}()
		for want := range 5 {
			synctest.Wait()
			if _, reads := k.asked(); reads != want {
				t.Errorf("%d pages were read while the client took %d", reads, want)
			}
			gate <- struct{}{}
		}
		close(gate)
		synctest.Wait()
		s.Close(sse.CloseDrain)
		<-done
		time.Sleep(time.Second) // let the write deadline's timer pass
	})
}
