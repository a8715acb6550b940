package sse_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-sse/caddy-sse/sse"
)

// end publishes an event that ends its channels.
func end(t testing.TB, h *sse.Hub, how sse.Ending, channels ...string) sse.Position {
	t.Helper()
	receipts, err := h.Publish(t.Context(), sse.Event{Channels: channels, End: how})
	if err != nil {
		t.Fatal(err)
	}
	return receipts[0].Position
}

// watch streams a subscription until it ends, and returns what was written.
func watch(t *testing.T, h *sse.Hub, start sse.Start, channels ...string) (*recorder, <-chan sse.End) {
	t.Helper()
	s := subscribe(t, h, start, channels...)
	w := &recorder{}
	ended := make(chan sse.End, 1)
	go func() { ended <- s.Stream(t.Context(), w, sse.NewTuning(sse.StreamOptions{Keepalive: -1})) }()
	return w, ended
}

// TestEnd holds that a client is told that a channel has ended, behind the last
// event of it, and that its stream ends with the last of its channels.
func TestEnd(t *testing.T) {
	const (
		endA   = `hub:end {"channel":"a"}`
		endB   = `hub:end {"channel":"b"}`
		closed = `hub:close {"reason":"ended"}`
	)
	for _, tc := range []struct {
		name  string
		items []string
		act   func(t *testing.T, h *sse.Hub)
		want  []string
		open  bool // the stream goes on
	}{
		{"after an event", []string{"a"}, func(t *testing.T, h *sse.Hub) { end(t, h, sse.EndAfter, "a") }, []string{"1", endA, closed}, false},
		{"without an event", []string{"a"}, func(t *testing.T, h *sse.Hub) { end(t, h, sse.EndOnly, "a") }, []string{endA, closed}, false},
		{"one of two", []string{"a", "b"}, func(t *testing.T, h *sse.Hub) {
			end(t, h, sse.EndAfter, "a")
			synctest.Wait()
			publishN(t, h, 1, "b")
		}, []string{"1", endA, "2"}, true},
		{"both, one by one", []string{"a", "b"}, func(t *testing.T, h *sse.Hub) {
			end(t, h, sse.EndAfter, "a")
			end(t, h, sse.EndOnly, "b")
		}, []string{"1", endA, endB, closed}, false},
		{"both at once", []string{"a", "b"}, func(t *testing.T, h *sse.Hub) { end(t, h, sse.EndAfter, "a", "b") }, []string{"1", endA, endB, closed}, false},
		{"only what was asked for", []string{"a"}, func(t *testing.T, h *sse.Hub) { end(t, h, sse.EndAfter, "secret", "a") }, []string{"1", endA, closed}, false},
		{"by a pattern, which never ends", []string{"a*"}, func(t *testing.T, h *sse.Hub) {
			end(t, h, sse.EndAfter, "a")
			end(t, h, sse.EndOnly, "ab")
			end(t, h, sse.EndOnly, "b")
		}, []string{"1", endA, `hub:end {"channel":"ab"}`}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, sse.Options{})
				w, ended := watch(t, h, sse.Latest(), tc.items...)
				synctest.Wait()
				tc.act(t, h)
				synctest.Wait()
				checkEnds(t, w, tc.want)
				select {
				case e := <-ended:
					if tc.open || e.Reason != sse.CloseEnded {
						t.Errorf("the stream ended with %q", e.Reason)
					}
				default:
					if !tc.open {
						t.Error("the stream goes on")
					}
				}
			})
		})
	}
}

// checkEnds compares what came behind hub:open. The channels that end at one
// position are told in the order of their names.
func checkEnds(t *testing.T, w *recorder, want []string) {
	t.Helper()
	got := summary(t, w.bytes())
	checkWords(t, "stream", got[1:], want)
}

// TestEndedBehind holds that the end of a channel is told after events that are
// still to be read from memory or from the record, on a busy stream too.
func TestEndedBehind(t *testing.T) {
	for _, evicted := range []string{"in memory", "in the record"} {
		t.Run(evicted, func(t *testing.T) {
			k := newKeeper()
			h := newHubOn(t, k, sse.Options{})
			s := subscribe(t, h, sse.Latest(), "a", "b")
			publishN(t, h, 20, "a")
			end(t, h, sse.EndOnly, "a")
			publishN(t, h, 20, "b")
			if evicted == "in the record" {
				h.EvictAll()
			}
			got := withoutCursors(pullAll(t, s))
			at := -1
			for i, word := range got {
				if strings.HasPrefix(word, "hub:end") {
					at = i
				}
			}
			if at <= 20 { // hub:open and the events of a come first
				t.Errorf("hub:end is at %d of %v", at, got)
			}
			if want := 42; len(got) != want {
				t.Errorf("%d frames, want %d: %v", len(got), want, got)
			}
		})
	}
}

// TestDroppedBeforeEnd: events behind a channel's end were sent before hub:end
// was. A client that was dropped in between came back from behind the end, and
// was never told of it, if it had asked by a pattern.
func TestDroppedBeforeEnd(t *testing.T) {
	for _, evicted := range []string{"in memory", "in the record"} {
		t.Run(evicted, func(t *testing.T) {
			k := newKeeper()
			h := newHubOn(t, k, sse.Options{})
			s := subscribe(t, h, sse.Latest(), "a*")
			publishN(t, h, 2, "a")
			publishN(t, h, 1, "ab")
			end(t, h, sse.EndOnly, "a")
			publishN(t, h, 2, "ab")
			if evicted == "in the record" {
				h.EvictAll()
			}
			all := append(s.OpenFrame(), pending(t, s)...)
			for got := range len(blocks(t, all)) {
				received := blocks(t, all)[:got+1]
				told := 0
				var last sse.Position
				for _, b := range received {
					if b.is("hub:end") {
						told++
					}
					if !b.id.IsZero() {
						last = b.id
					}
				}
				again := subscribe(t, h, sse.After(last), "a*")
				for _, b := range blocks(t, pending(t, again)) {
					if b.is("hub:end") {
						told++
					}
				}
				if told == 0 {
					t.Errorf("who came back with %s, after %d frames, was not told of the end", last, got+1)
				}
			}
		})
	}
}

// TestEndWhileReading: a channel ended while a page of the record was read for a
// subscriber of a pattern. The page went beyond the end, and so did the client's
// cursor, without hub:end. If it was dropped then, it was never told.
func TestEndWhileReading(t *testing.T) {
	k, h := gone(t)
	k.most = 1000
	s := subscribe(t, h, after(h, 0), "a*")
	k.beforeRead = func() {
		k.beforeRead = nil
		end(t, h, sse.EndOnly, "ab")
		publishN(t, h, 1, "a")
	}
	told := 0
	for _, b := range blocks(t, pending(t, s)) {
		if b.is("hub:end") {
			told++
		} else if b.id.Seq >= 101 && told == 0 {
			t.Errorf("sent %s before the end at 101", b.id)
		}
	}
	if told != 1 {
		t.Errorf("told %d times of the end", told)
	}
}

// TestJoinEnded holds what one finds who comes when channels have ended: what
// is left to replay, the end, and a stream that closes; or nothing at all.
func TestJoinEnded(t *testing.T) {
	k := newKeeper()
	h := newHubOn(t, k, sse.Options{})
	publishN(t, h, 2, "a")
	end(t, h, sse.EndAfter, "a")
	end(t, h, sse.EndOnly, "empty")
	publishN(t, h, 1, "open")

	const endA, closed = `hub:end {"channel":"a"}`, `hub:close {"reason":"ended"}`
	elsewhere := sse.After(sse.Position{Epoch: "other", Seq: 2})
	for _, restarted := range []string{"running", "evicted", "restarted"} {
		t.Run(restarted, func(t *testing.T) {
			switch restarted {
			case "evicted":
				h.EvictAll()
			case "restarted":
				h = restart(t, k, h, sse.Options{})
			}
			for _, tc := range []struct {
				name  string
				start sse.Start
				items []string
				want  []string // nil is ErrEnded
			}{
				{"earliest", sse.Earliest(), []string{"a"}, []string{"1", "2", "3", endA, closed}},
				{"behind", after(h, 1), []string{"a"}, []string{"2", "3", endA, closed}},
				{"nothing missed", after(h, 3), []string{"a"}, nil},
				{"long after", after(h, 5), []string{"a"}, nil},
				{"now", sse.Latest(), []string{"a"}, nil},
				{"never had an event", sse.Earliest(), []string{"empty"}, nil},
				{"both ended", sse.Latest(), []string{"a", "empty"}, nil},
				{"another epoch", elsewhere, []string{"a"}, []string{endA, closed}},
			} {
				s, err := h.Subscribe(t.Context(), sse.SubscribeOptions{Channels: tc.items, Start: tc.start})
				if tc.want == nil {
					if !errors.Is(err, sse.ErrEnded) {
						t.Errorf("%s: Subscribe: %v, want ErrEnded", tc.name, err)
					}
					continue
				}
				if err != nil {
					t.Errorf("%s: Subscribe: %v", tc.name, err)
					continue
				}
				w := &recorder{}
				if e := s.Stream(t.Context(), w, sse.NewTuning(sse.StreamOptions{})); e.Reason != sse.CloseEnded {
					t.Errorf("%s: the stream ends with %q", tc.name, e.Reason)
				}
				checkWords(t, tc.name, withoutCursors(summary(t, w.bytes())[1:]), tc.want)
				if w.status != http.StatusOK {
					t.Errorf("%s: status %d", tc.name, w.status)
				}
			}
			for items, want := range map[string][]string{"a open": {endA}, "*": nil, "open": nil} {
				s := subscribe(t, h, sse.Latest(), strings.Fields(items)...)
				checkWords(t, items, pullAll(t, s)[1:], want)
				s.Leave()
			}
			if n := h.Stats().Streams; n != 0 {
				t.Errorf("%d streams are left", n)
			}
		})
	}
}

// TestPublishOnEnded holds that nothing follows the end of a channel, until the
// record has given up that it ended; then it begins anew for everybody.
func TestPublishOnEnded(t *testing.T) {
	k := newKeeper()
	h := newHubOn(t, k, sse.Options{})
	end(t, h, sse.EndAfter, "a")
	_, err := h.Publish(t.Context(), sse.Event{Channels: []string{"b"}}, sse.Event{Channels: []string{"c", "a"}})
	ended, ok := errors.AsType[*sse.EndedError](err)
	if !ok || ended.Channel != "a" || ended.Index != 1 || ended.At != at(h, 1) {
		t.Fatalf("Publish: %v", err)
	}
	if info, _, ok := channelOf(t, h, "a", 1); !ok || !info.Ended {
		t.Errorf("the channel is described as %+v", info)
	}
	publishN(t, h, 1, "b")
	k.trim(1)
	both := subscribe(t, h, sse.Latest(), "a", "b")
	pullAll(t, both)
	publish(t, h, "anew", "a")
	checkWords(t, "anew", summary(t, pending(t, both)), []string{"3"})
	if info, _, _ := channelOf(t, h, "a", 1); info.Ended {
		t.Error("the channel is still described as ended")
	}
	checkWords(t, "joined", pullAll(t, subscribe(t, h, after(h, 2), "a")), []string{"hub:open@2 complete", "3"})
}

// TestManyEnds holds that a hub knows of a bounded number of channels that have
// ended, the newest, and tells them all to one who reads.
func TestManyEnds(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := subscribe(t, h, sse.Latest(), "job-*")
	pullAll(t, s)
	const more = 10
	for from := 0; from < sse.MaxEnded+more; from += more {
		events := make([]sse.Event, more)
		for i := range events {
			events[i] = sse.Event{Channels: []string{fmt.Sprint("job-", from+i)}, End: sse.EndOnly}
		}
		if _, err := h.Publish(t.Context(), events...); err != nil {
			t.Fatal(err)
		}
		if got := len(summary(t, pending(t, s))); got != more {
			t.Fatalf("told of %d ends, want %d", got, more)
		}
	}
	for name, want := range map[string]bool{"job-0": false, "job-9": false, "job-10": true, fmt.Sprint("job-", sse.MaxEnded+more-1): true} {
		if _, _, ended := channelOf(t, h, name, 1); ended != want {
			t.Errorf("%s has ended: %v, want %v", name, ended, want)
		}
	}
}
