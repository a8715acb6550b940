package sse_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// resumed joins the channels behind a seq and returns the open frame and all
// that is replayed.
func resumed(t testing.TB, h *sse.Hub, seq uint64, channels ...string) []string {
	t.Helper()
	s := subscribe(t, h, after(h, seq), channels...)
	defer s.Leave()
	return pullAll(t, s)
}

// checkBoundary checks that on channel c a resume behind the newest event that
// is gone is complete, and one position earlier a reset. Other events are as
// given, and next is the first kept event of the channel.
func checkBoundary(t *testing.T, h *sse.Hub, gone uint64, kept []string) {
	t.Helper()
	head := h.Stats().Position.Seq
	for _, tc := range []struct {
		name  string
		after uint64
		want  []string
	}{
		{"at the last one gone", gone, words([]string{fmt.Sprintf("hub:open@%d complete", gone)}, kept)},
		{"one behind", gone + 1, nil},
		{"one before", gone - 1, []string{fmt.Sprintf("hub:open@%d reset c=expired", head)}},
		{"at the first", 1, []string{fmt.Sprintf("hub:open@%d reset c=expired", head)}},
		{"at the head", head, []string{fmt.Sprintf("hub:open@%d complete", head)}},
	} {
		if tc.after > head {
			continue
		}
		if tc.want == nil { // the seq may be on the channel, or another's
			rest := slices.DeleteFunc(slices.Clone(kept), func(word string) bool { return word == fmt.Sprint(gone+1) })
			tc.want = words([]string{fmt.Sprintf("hub:open@%d complete", gone+1)}, rest)
		}
		checkWords(t, tc.name, resumed(t, h, tc.after, "c"), tc.want)
		for i, word := range tc.want { // a pattern says the same
			tc.want[i] = strings.ReplaceAll(word, "c=", "*=")
		}
		s := subscribe(t, h, after(h, tc.after), "c*")
		open := summary(t, s.OpenFrame())[0]
		s.Leave()
		if want := strings.ReplaceAll(tc.want[0], "*=", "c*="); open != want {
			t.Errorf("%s, by a pattern: %s, want %s", tc.name, open, want)
		}
	}
}

// TestHistoryCount holds that a resume is complete exactly if no more than the
// configured count of events was missed on a channel, although more of them are
// in memory.
func TestHistoryCount(t *testing.T) {
	h := newHub(t, sse.Options{HistoryCount: 3})
	for range 10 { // c has the even ones up to 20, others the odd ones
		publishN(t, h, 1, "other")
		publishN(t, h, 1, "c")
	}
	checkBoundary(t, h, 14, []string{"16", "18", "20"})
	checkWords(t, "earliest", pullAll(t, subscribe(t, h, sse.Earliest(), "c")), []string{"hub:open@0 complete", "16", "18", "20"})
}

// TestHistoryAge holds that a resume is complete exactly if no event that is
// older than the configured age was missed, whether the sweep was there already
// or not; and that the sweep frees the memory.
func TestHistoryAge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{HistoryAge: time.Minute})
		publishN(t, h, 4, "c")
		time.Sleep(30 * time.Second)
		publishN(t, h, 2, "other")
		publishN(t, h, 3, "c") // 7 to 9
		time.Sleep(30 * time.Second)
		checkWords(t, "not older yet", resumed(t, h, 1, "c"), words([]string{"hub:open@1 complete"}, seqs(2, 4), seqs(7, 9)))
		time.Sleep(time.Nanosecond)
		checkBoundary(t, h, 4, seqs(7, 9))
		time.Sleep(10 * time.Second) // sweeps; the segment is young in part
		checkBoundary(t, h, 4, seqs(7, 9))
		time.Sleep(20 * time.Second)
		checkBoundary(t, h, 9, nil)
		time.Sleep(10 * time.Second)
		if kept := h.Stats().KeptBytes; kept > 2*sse.IdleCost {
			t.Errorf("%d bytes are kept of two channels whose events are too old", kept)
		}
		checkBoundary(t, h, 9, nil)
		checkWords(t, "earliest", pullAll(t, subscribe(t, h, sse.Earliest(), "c", "other")), []string{"hub:open@0 complete"})
	})
}

// TestHistoryBudget holds that memory stays within the budget, and that a
// resume knows exactly which events went for it.
func TestHistoryBudget(t *testing.T) {
	const budget = 4 * sse.SegmentBytes
	h := newHub(t, sse.Options{Memory: budget})
	large := strings.Repeat("x", sse.SegmentBytes/2+1) // one to a segment
	for range 4 {
		publish(t, h, large, "c")
		publish(t, h, large, "other")
		if kept := h.Stats().KeptBytes; kept > budget {
			t.Errorf("%d bytes are kept, the budget is %d", kept, budget)
		}
	}
	gone, known := h.Evicted("c")
	if !known || gone == 0 || gone == 7 {
		t.Fatalf("evicted up to %d; the test is to be mended", gone)
	}
	var kept []string
	for seq := gone + 2; seq <= 7; seq += 2 {
		kept = append(kept, fmt.Sprint(seq))
	}
	checkBoundary(t, h, gone, kept)
}

// TestHistoryForgotten holds that of a channel of which the hub forgot that it
// had events nobody is told that nothing was missed, and that a resume behind
// all that was forgotten is complete.
func TestHistoryForgotten(t *testing.T) {
	const remembered = 2
	h := newHub(t, sse.Options{Memory: remembered * sse.IdleCost * sse.IdleShare})
	for i := range 5 {
		publishN(t, h, 1, fmt.Sprint("c", i))
	}
	publishN(t, h, 1, "other")
	h.EvictAll()
	publishN(t, h, 1, "other") // 7; evicts
	if h.Forgotten() != 3 {
		t.Fatalf("forgotten up to %d, want 3; the test is to be mended", h.Forgotten())
	}
	for _, tc := range []struct {
		name    string
		after   uint64
		channel string
		want    []string
	}{
		{"forgotten", 0, "c0", []string{"hub:open@7 reset c0=expired"}},
		{"forgotten, not missed", 3, "c0", []string{"hub:open@3 complete"}},
		{"perhaps forgotten", 2, "never", []string{"hub:open@7 reset never=expired"}},
		{"not forgotten", 3, "never", []string{"hub:open@3 complete"}},
		{"remembered", 3, "c3", []string{"hub:open@7 reset c3=expired"}},
		{"remembered, not missed", 4, "c3", []string{"hub:open@4 complete"}},
		{"pattern", 2, "c*", []string{"hub:open@7 reset c*=expired"}},
		{"pattern of remembered", 3, "c*", []string{"hub:open@7 reset c*=expired"}},
		{"pattern, not missed", 5, "c*", []string{"hub:open@5 complete"}},
		{"pattern of none, perhaps forgotten", 2, "z*", []string{"hub:open@7 reset z*=expired"}},
		{"pattern of none", 3, "z*", []string{"hub:open@3 complete"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			checkWords(t, "resume", resumed(t, h, tc.after, tc.channel), tc.want)
		})
	}
	publishN(t, h, 1, "c0") // 8; it is made anew
	checkWords(t, "forgotten and new", resumed(t, h, 2, "c0"), []string{"hub:open@8 reset c0=expired"})
	checkWords(t, "only what is new", resumed(t, h, 3, "c0"), []string{"hub:open@3 complete", "8"})
}

// TestHistoryBeforeTheHub holds that events of the record before the hub's
// start, which it never saw, are not taken for none.
func TestHistoryBeforeTheHub(t *testing.T) {
	broker := sse.NewMemoryBroker()
	first := newHubOn(t, broker, sse.Options{})
	publishN(t, first, 5, "c")
	h := newHubOn(t, broker, sse.Options{})
	publishN(t, h, 2, "c")
	checkWords(t, "before", resumed(t, h, 4, "c"), []string{"hub:open@7 reset c=expired"})
	checkWords(t, "behind", resumed(t, h, 5, "c"), []string{"hub:open@5 complete", "6", "7"})
	checkWords(t, "the other hub", resumed(t, first, 4, "c"), []string{"hub:open@4 complete", "5", "6", "7"})
}

// TestHistoryBurst holds that a small history loses nothing for a stream that is
// connected, while one who joins gets what is kept.
func TestHistoryBurst(t *testing.T) {
	h := newHub(t, sse.Options{HistoryCount: 1})
	s := subscribe(t, h, sse.Latest(), "c")
	publishN(t, h, 50, "c")
	checkWords(t, "connected", pullAll(t, s), words([]string{"hub:open@0 fresh"}, seqs(1, 50)))
	checkWords(t, "joins", pullAll(t, subscribe(t, h, sse.Earliest(), "c")), []string{"hub:open@0 complete", "50"})

	// Beyond liveBytes, those that have not read are reset.
	slow := subscribe(t, h, sse.Latest(), "c")
	for range 2 + (sse.LiveBytes+sse.SegmentBytes)/1000 {
		publish(t, h, strings.Repeat("x", 1000), "c")
	}
	got := pullAll(t, slow)
	if head := h.Stats().Position.Seq; len(got) != 2 || got[1] != fmt.Sprintf("hub:reset@%d reset c=expired", head) {
		t.Errorf("beyond the live bytes: %q", got)
	}
}

// TestSetOptions holds that a live hub keeps to new settings.
func TestSetOptions(t *testing.T) { synctest.Test(t, testSetOptions) }

func testSetOptions(t *testing.T) {
	h := newHub(t, sse.Options{})
	large := strings.Repeat("x", sse.SegmentBytes)
	for range 20 {
		publish(t, h, large, "c")
	}
	time.Sleep(sse.LiveAge)
	h.SetOptions(sse.Options{HistoryCount: 5})
	checkWords(t, "fewer", resumed(t, h, 14, "c"), []string{"hub:open@20 reset c=expired"})
	checkWords(t, "those", resumed(t, h, 15, "c"), words([]string{"hub:open@15 complete"}, seqs(16, 20)))
	if kept := h.Stats().KeptBytes; kept > 8*sse.SegmentBytes {
		t.Errorf("%d bytes are kept of 5 events; the doc says that others are evicted", kept)
	}
	h.SetOptions(sse.Options{Memory: 3 * sse.SegmentBytes})
	if kept := h.Stats().KeptBytes; kept > 3*sse.SegmentBytes {
		t.Errorf("%d bytes are kept", kept)
	}
}

// TestOptionsNegative holds that no setting makes the hub fail: a negative one
// is none of those documented, and config is written by people.
func TestOptionsNegative(t *testing.T) {
	for _, options := range []sse.Options{{HistoryCount: -1}, {HistoryAge: -time.Second}, {Memory: -1}, {Memory: -1 << 30}} {
		t.Run(fmt.Sprint(options.HistoryCount, options.HistoryAge, options.Memory), func(t *testing.T) {
			h := newHub(t, options)
			s := subscribe(t, h, sse.Latest(), "c")
			func() {
				defer func() {
					if r := recover(); r != nil {
						t.Fatalf("panic: %v", r)
					}
				}()
				publishN(t, h, 1, "c")
			}()
			checkWords(t, "connected", pullAll(t, s), []string{"hub:open@0 fresh", "1"})
		})
	}
}

// TestChannels holds what the listings tell: names in byte order, by pages, with
// counts of what is kept and of who listens.
func TestChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{HistoryCount: 2})
		start := time.Now()
		for _, name := range []string{"b", "a/2", "a/10", "a/1"} {
			publishN(t, h, 3, name)
		}
		for _, items := range [][]string{{"a/1", "b"}, {"a/*"}, {"a/1", "a/*"}, {"*"}, {"quiet"}} {
			subscribe(t, h, sse.Latest(), items...)
		}
		list := func(prefix, after string, limit int) (lines []string) {
			for _, c := range channelsOf(t, h, prefix, after, limit, nil) {
				lines = append(lines, fmt.Sprintf("%s %d subscribers %d events to %d", c.Channel, c.Subscribers, c.Events, c.Last.Seq))
			}
			return lines
		}
		all := []string{
			"a/1 4 subscribers 2 events to 12",
			"a/10 3 subscribers 2 events to 9",
			"a/2 3 subscribers 2 events to 6",
			"b 2 subscribers 2 events to 3",
			"quiet 2 subscribers 0 events to 0",
		}
		checkWords(t, "all", list("", "", 10), all)
		checkWords(t, "prefix", list("a/", "", 10), all[:3])
		checkWords(t, "first page", list("", "", 2), all[:2])
		checkWords(t, "second page", list("", "a/10", 2), all[2:4])
		checkWords(t, "after the last", list("", "quiet", 2), nil)
		checkWords(t, "limit 0", list("", "", 0), nil)

		info, events, ok := channelOf(t, h, "b", 10)
		if !ok || info.Events != 2 || len(events) != 2 {
			t.Fatalf("Channel(b) = %+v, %v, %v", info, events, ok)
		}
		for i, e := range events {
			want := sse.KeptEvent{ID: at(h, uint64(2+i)), Event: "message", Data: fmt.Sprint(2 + i), Time: time.Unix(0, start.UnixNano())}
			if e != want {
				t.Errorf("event %d is %+v, want %+v", i, e, want)
			}
		}
		if _, events, _ := channelOf(t, h, "b", 1); len(events) != 1 || events[0].Data != "3" {
			t.Errorf("with limit 1: %v", events)
		}
		if info, events, ok := channelOf(t, h, "quiet", 10); !ok || len(events) > 0 || info.Last.Seq != 0 || info.Last.Epoch == "" {
			t.Errorf("Channel(quiet) = %+v, %v, %v", info, events, ok)
		}
		if _, _, ok := channelOf(t, h, "unknown", 10); ok {
			t.Error("an unknown channel is known")
		}
		h.EvictAll()
		if info, events, ok := channelOf(t, h, "b", 10); !ok || len(events) > 0 || info.Events != 0 || info.Bytes != 0 || info.Last.Seq != 3 {
			t.Errorf("when all is evicted, Channel(b) = %+v, %v, %v", info, events, ok)
		}
	})
}

// TestChannelsGo holds that names which were only listened to leave nothing.
func TestChannelsGo(t *testing.T) {
	h := newHub(t, sse.Options{})
	var all []*sse.Subscriber
	for i := range 20 {
		all = append(all, subscribe(t, h, sse.Latest(), "shared", "p*", fmt.Sprint("own-", i), fmt.Sprint("q", i, "*")))
	}
	for i := range all { // not in the order of joining
		s := all[(i*7)%len(all)]
		s.Leave()
		s.Leave()
		if got := h.Stats(); got.Streams != 19-i || (i == 19) != (got.Channels == 0) || (i == 19) != (got.Patterns == 0) {
			t.Errorf("after %d left: %+v", i+1, got)
		}
	}
	if got, err := h.Publish(t.Context(), sse.Event{Channels: []string{"shared", "p1"}}); err != nil || got[0].Subscribers != 0 {
		t.Errorf("Publish: %v, %v", got, err)
	}
}
