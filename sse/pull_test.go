package sse_test

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// TestForgottenWhileStalled holds that a stalled pattern subscriber is told of
// the events of channels that the hub has forgotten meanwhile, also when more
// channels had news than it remembers.
func TestForgottenWhileStalled(t *testing.T) {
	for _, tc := range []struct {
		name  string
		later int // channels with news after the forgotten one
	}{
		{"few have news", sse.MaxDirty - 2},
		{"more than remembered", sse.MaxDirty},
		{"many", 10 * sse.MaxDirty},
	} {
		t.Run(tc.name, func(t *testing.T) {
			const remembered = 100 // idle channels
			h := newHub(t, sse.Options{Memory: remembered * sse.IdleCost * sse.IdleShare})
			s := subscribe(t, h, sse.Latest(), "mine-*", "quiet")
			for i := range 5 {
				publishN(t, h, 1, fmt.Sprint("mine-", i)) // 1 to 5
			}
			for i := range remembered { // those that are idle for the shortest time
				publishN(t, h, 1, fmt.Sprint("other-", i))
			}
			h.EvictAll()
			for i := range tc.later - 4 {
				publishN(t, h, 1, fmt.Sprint("mine-new-", i))
			}
			if h.Forgotten() != 5 {
				t.Fatalf("forgotten up to %d; the test is to be mended", h.Forgotten())
			}
			got := pullAll(t, s)
			if len(got) < 2 || !strings.HasPrefix(got[1], "hub:reset@") || !strings.Contains(got[1], "mine-*=expired") {
				t.Errorf("1 to 5 are gone, and the stream says %.300q", got)
			}
		})
	}
}

// TestQuietPatternIsNotReset holds that a pattern subscriber that was sent
// everything is not reset because channels were forgotten, its own or others,
// however old its last event is.
func TestQuietPatternIsNotReset(t *testing.T) {
	h := newHub(t, sse.Options{Memory: 100 * sse.IdleCost * sse.IdleShare})
	s := subscribe(t, h, sse.Latest(), "mine-*")
	var odd []string
	for i := range 100 {
		odd = append(odd, fmt.Sprint(2*i+1))
		publishN(t, h, 1, fmt.Sprint("mine-", i))
		publishN(t, h, 1, fmt.Sprint("other-", i))
	}
	checkWords(t, "first", pullAll(t, s), words([]string{"hub:open@0 fresh"}, odd))
	h.EvictAll()
	publishN(t, h, 1, "other-9") // 201; forgets
	var burst []sse.Event
	for i := range 2 * sse.MaxDirty {
		burst = append(burst, sse.Event{Channels: []string{fmt.Sprint("mine-burst-", i)}})
	}
	if _, err := h.Publish(t.Context(), burst...); err != nil {
		t.Fatal(err)
	}
	if h.Forgotten() == 0 {
		t.Fatal("nothing was forgotten; the test is to be mended")
	}
	checkWords(t, "burst", summary(t, pending(t, s)), seqs(202, 201+2*sse.MaxDirty))
}

// TestEvictedBeforeFirstPull holds that events that go between the decision that
// a resume is complete and the first batch are told by a reset.
func TestEvictedBeforeFirstPull(t *testing.T) {
	for _, tc := range []struct {
		name     string
		channels []string
		want     []string // with 1 on a, 2 on b, and 3 on a after the eviction
	}{
		{"one channel", []string{"a"}, []string{"hub:open@0 complete", "hub:reset@3 a=expired"}},
		{"two channels", []string{"a", "b"}, []string{"hub:open@0 complete", "hub:reset@3 a=expired b=expired"}},
		{"one of two", []string{"a", "c"}, []string{"hub:open@0 complete", "hub:reset@0 a=expired"}},
		{"pattern", []string{"*"}, []string{"hub:open@0 complete", "hub:reset@3 *=expired"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHub(t, sse.Options{})
			publishN(t, h, 1, "a")
			publishN(t, h, 1, "b")
			s := subscribe(t, h, after(h, 0), tc.channels...)
			h.EvictAll()
			publishN(t, h, 1, "a")
			for i, word := range tc.want {
				tc.want[i] = strings.Replace(word, "hub:reset@3 ", "hub:reset@3 reset ", 1)
				tc.want[i] = strings.Replace(tc.want[i], "hub:reset@0 ", "hub:reset@0 reset ", 1)
			}
			got := pullAll(t, s)
			if len(got) == 2 && len(tc.want) == 2 && sameResets(got[1:], tc.want[1:]) {
				got = tc.want
			}
			checkWords(t, "stream", got, tc.want)
			publishN(t, h, 1, "a", "b")
			checkWords(t, "then", summary(t, pending(t, s)), []string{"4"})
		})
	}
}

// TestEvictedMidReplay holds that a replay of many batches from several channels
// whose rest is evicted ends in a reset: all that came before it is whole and in
// order, nothing of the reset channels comes after it but what is newer, and the
// other channels miss nothing.
func TestEvictedMidReplay(t *testing.T) {
	for _, pulls := range []int{0, 1, 2, 5} {
		t.Run(fmt.Sprint(pulls, " batches before"), func(t *testing.T) {
			h := newHub(t, sse.Options{})
			data := strings.Repeat("x", 3000)
			for range 40 {
				publish(t, h, data, "a")
				publish(t, h, data, "b")
				publish(t, h, data, "p1")
				publish(t, h, data, "p2")
			}
			s := subscribe(t, h, after(h, 0), "a", "b", "p*", "late")
			next := uint64(1)
			for range pulls {
				frames, _, _ := s.Pull()
				for _, b := range blocks(t, frames) {
					if b.id.Seq != next {
						t.Fatalf("got %d, want %d", b.id.Seq, next)
					}
					next++
				}
			}
			h.EvictAll()
			publish(t, h, data, "late") // 161
			want := []string{fmt.Sprintf("hub:reset@%d reset a=expired b=expired p*=expired", next-1), "161"}
			got := summary(t, pending(t, s))
			if len(got) != 2 || !sameResets(got[:1], want[:1]) || got[1] != want[1] {
				t.Errorf("\n got %q\nwant %q", got, want)
			}
			publish(t, h, "x", "a")
			publish(t, h, "x", "p2")
			checkWords(t, "then", summary(t, pending(t, s)), []string{"162", "163"})
		})
	}
}

// TestEvictedOneOfMerge holds that only the channel that lost events is reset,
// when its older segments go between two pulls of a merge.
func TestEvictedOneOfMerge(t *testing.T) { synctest.Test(t, testEvictedOneOfMerge) }

func testEvictedOneOfMerge(t *testing.T) {
	h := newHub(t, sse.Options{HistoryCount: 1})
	data := strings.Repeat("x", 10_000)
	s := subscribe(t, h, sse.Latest(), "small", "large")
	publish(t, h, "x", "small") // 1
	for range 3 {
		publish(t, h, data, "large") // 2, 3, 4
	}
	publish(t, h, "x", "small") // 5
	publish(t, h, data, "large")
	frames, _, _ := s.Pull()
	got := summary(t, frames)
	checkWords(t, "first batch", got, seqs(1, 5)[:len(got)])
	for range 20 {
		publish(t, h, data, "large") // 7 to 26
	}
	time.Sleep(2 * time.Minute) // is swept
	publish(t, h, "x", "small") // 27
	evicted, _ := h.Evicted("large")
	if evicted <= uint64(len(got)) {
		t.Fatalf("evicted up to %d; the test is to be mended", evicted)
	}
	want := []string{fmt.Sprintf("hub:reset@%d reset large=expired", len(got))}
	for _, seq := range []int{1, 5, 27} {
		if seq > len(got) {
			want = append(want, fmt.Sprint(seq))
		}
	}
	checkWords(t, "rest", summary(t, pending(t, s)), want)
}

// TestReplayBatches holds that a long merged replay comes in several batches
// without a hole, a double or a step back, with live events that arrive between
// two of them.
func TestReplayBatches(t *testing.T) {
	h := newHub(t, sse.Options{})
	data := strings.Repeat("x", 1500)
	for i := range 200 {
		publish(t, h, data, fmt.Sprint("c", i%3), fmt.Sprint("d", i%5))
	}
	s := subscribe(t, h, after(h, 0), "c*", "d1", "d2", "d3", "d4", "d0")
	batches, next := 0, uint64(1)
	for {
		frames, _, _ := s.Pull()
		if len(frames) == 0 {
			break
		}
		if len(frames) > sse.SegmentBytes+2000 {
			t.Errorf("a batch of %d bytes", len(frames))
		}
		for _, b := range blocks(t, frames) {
			if b.id.Seq != next {
				t.Fatalf("got %d, want %d", b.id.Seq, next)
			}
			next++
		}
		if batches++; batches <= 20 {
			publish(t, h, data, "c1", "d3")
		}
	}
	if next != 221 || batches < 10 {
		t.Errorf("%d events in %d batches, want 220 events", next-1, batches)
	}
}

// TestLargeEvent holds that an event larger than any batch or segment is sent
// whole, alone and among others.
func TestLargeEvent(t *testing.T) {
	h := newHub(t, sse.Options{})
	large := strings.Repeat("x", 10*sse.SegmentBytes)
	s := subscribe(t, h, sse.Latest(), "a", "b")
	for _, channel := range []string{"a", "b", "a"} {
		publish(t, h, "x", channel)
		publish(t, h, large, channel)
	}
	all := blocks(t, pending(t, s))
	for i, b := range all {
		if want := []string{"x", large}[i%2]; b.id.Seq != uint64(i+1) || b.msg.Data != want {
			t.Errorf("frame %d: %d with %d bytes, want %d", i+1, b.id.Seq, len(b.msg.Data), len(want))
		}
	}
	if len(all) != 6 {
		t.Errorf("%d events, want 6", len(all))
	}
}

// TestPullWhileAnnouncing holds the reasoning at head and settled: a subscriber
// that reads after the head has moved and before it was told of the newest event
// misses nothing, gets nothing twice, and no keepalive moves its id past the
// event. The moment is made by another subscriber's waker, which runs in between.
func TestPullWhileAnnouncing(t *testing.T) {
	for _, tc := range []struct {
		name   string
		before []string   // channels of an event that is pending at that moment
		items  []string   // of the one that reads
		event  [][]string // published together
	}{
		{"nothing pending", nil, []string{"a"}, [][]string{{"w", "a"}}},
		{"the same channel pending", []string{"a"}, []string{"a"}, [][]string{{"w", "a"}}},
		{"another pending", []string{"b"}, []string{"a", "b"}, [][]string{{"w", "a"}}},
		{"on two of its channels", []string{"b"}, []string{"a", "b"}, [][]string{{"w", "a", "b"}}},
		{"on one told before and one after", []string{"0"}, []string{"0", "a"}, [][]string{{"0", "w", "a"}}},
		{"by a pattern", []string{"b"}, []string{"*"}, [][]string{{"w", "a", "b"}}},
		{"by a pattern, nothing pending", nil, []string{"a*"}, [][]string{{"w", "a1", "a2"}}},
		{"a batch", []string{"b"}, []string{"a", "b"}, [][]string{{"b"}, {"w", "a"}, {"b"}, {"w", "b"}, {"a"}}},
	} {
		for _, do := range []string{"pull", "keepalive", "both", "drain"} {
			t.Run(tc.name+"/"+do, func(t *testing.T) {
				h := newHub(t, sse.Options{})
				waker := subscribe(t, h, sse.Latest(), "w")
				s := subscribe(t, h, sse.Latest(), tc.items...)
				if tc.before != nil {
					publish(t, h, "x", tc.before...)
				}
				var stream []byte
				waker.Attach(func() {
					if do == "keepalive" || do == "both" {
						stream = append(stream, s.KeepaliveFrame()...)
					}
					if do != "keepalive" {
						for range map[string]int{"pull": 1, "both": 1, "drain": 3}[do] {
							frames, _, _ := s.Pull()
							stream = append(stream, frames...)
						}
					}
					if do == "both" {
						stream = append(stream, s.KeepaliveFrame()...)
					}
					for range 3 { // and be woken again
						waker.Pull()
					}
				}, nil)
				var events []sse.Event
				for _, channels := range tc.event {
					events = append(events, sse.Event{Channels: channels})
				}
				if _, err := h.Publish(t.Context(), events...); err != nil {
					t.Fatal(err)
				}
				stream = append(stream, pending(t, s)...)
				var got, want []string
				last := uint64(0)
				for _, b := range blocks(t, stream) {
					if b.is("") && b.id.IsZero() {
						continue
					}
					if b.id.Seq <= last {
						t.Errorf("id %d after %d", b.id.Seq, last)
					}
					if last = b.id.Seq; !b.is("") {
						got = append(got, fmt.Sprint(last))
					}
				}
				seq := 0
				if tc.before != nil {
					seq++
					want = append(want, "1")
				}
				for _, channels := range tc.event {
					seq++
					for _, name := range channels {
						if covered(tc.items, name) {
							want = append(want, fmt.Sprint(seq))
							break
						}
					}
				}
				checkWords(t, "events", got, want)
			})
		}
	}
}

// TestWakeOnce holds that a subscriber is woken by the first news only, until it
// looks; and that it is always woken when it had everything.
func TestWakeOnce(t *testing.T) {
	h := newHub(t, sse.Options{})
	wakes, interrupts := 0, 0
	s := subscribe(t, h, sse.Latest(), "a", "b*")
	s.Attach(func() { wakes++ }, func() { interrupts++ })
	step := func(what string, want int) {
		t.Helper()
		if wakes != want {
			t.Errorf("%s: woken %d times, want %d", what, wakes, want)
		}
		wakes = 0
	}
	publishN(t, h, 1, "other")
	step("another channel", 0)
	publishN(t, h, 3, "a", "b1")
	step("news", 1)
	s.Pull()
	publishN(t, h, 2, "b2")
	step("news after a look", 1)
	pending(t, s)
	publishN(t, h, 1, "a")
	step("news when it had everything", 1)
	s.Close(sse.CloseDrain)
	s.Close(sse.CloseExpired)
	if interrupts == 0 || wakes == 0 {
		t.Errorf("Close wakes %d times and interrupts %d times", wakes, interrupts)
	}
	if _, _, closing := s.Pull(); closing != sse.CloseDrain {
		t.Errorf("closes for %q, want the first reason", closing)
	}
}

// TestWorkIsBounded holds that a slow subscriber's own memory does not grow with
// what is published while it lags: its list of channels to read is no longer than
// there are channels, and a few that it was told of since.
func TestWorkIsBounded(t *testing.T) {
	h := newHub(t, sse.Options{HistoryCount: 100_000})
	const channels = 4 * sse.MaxDirty
	data := strings.Repeat("x", 20_000)
	s := subscribe(t, h, sse.Latest(), "*")
	round := func(n int) {
		for i := range n {
			publish(t, h, data, fmt.Sprint("c", channels-1-i))
		}
	}
	round(channels)
	for range 100 { // each reads one batch, and has news on many channels
		s.Pull()
		round(sse.MaxDirty - 2)
	}
	if got := s.WorkLen(); got > channels+2*sse.MaxDirty {
		t.Errorf("the list has %d entries, there are %d channels", got, channels)
	}
}
