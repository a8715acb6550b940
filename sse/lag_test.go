package sse_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A lagging hub's events have this data.
var load = strings.Repeat("x", 1000)

// frameSize is about what an event of the load has as a frame, a little less.
const frameSize = 1000

// events is the lag of that many events, and a little more.
func events(n int64) sse.StreamOptions { return sse.StreamOptions{Lag: n*frameSize + frameSize/2} }

func publishLoad(t testing.TB, h *sse.Hub, n int, channels ...string) {
	t.Helper()
	for range n {
		publish(t, h, load, channels...)
	}
}

// tuned subscribes with settings of a stream.
func tuned(t testing.TB, h *sse.Hub, options sse.StreamOptions, start sse.Start, channels ...string) *sse.Subscriber {
	t.Helper()
	s := subscribe(t, h, start, channels...)
	s.Tune(sse.NewTuning(options))
	return s
}

func disconnect(options sse.StreamOptions) sse.StreamOptions {
	options.Slow = sse.SlowDisconnect
	return options
}

// TestLag holds that a stream which is further behind than it may be is skipped
// ahead to the newest event, told of what it lost, and goes on; and that nothing
// happens to one which is as far behind as it may be.
func TestLag(t *testing.T) {
	for _, tc := range []struct {
		name  string
		items []string
		may   int64 // in events
		then  []string
	}{
		{"within", []string{"a"}, 3, seqs(2, 4)},
		{"beyond", []string{"a"}, 2, []string{"hub:reset@6 reset a=limit"}},
		{"no limit", []string{"a"}, -1, seqs(2, 4)},
		{"several, within", []string{"a", "b", "quiet"}, 5, seqs(2, 6)},
		// What is not reset goes on from where the stream is.
		{"several, beyond", []string{"a", "b", "quiet"}, 4, []string{"hub:reset@1 reset a=limit b=limit"}},
		{"pattern, within", []string{"*"}, 5, seqs(2, 6)},
		{"pattern, beyond", []string{"*"}, 4, []string{"hub:reset@6 reset *=limit"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHub(t, sse.Options{})
			s := tuned(t, h, events(tc.may), sse.Latest(), tc.items...)
			publishLoad(t, h, 1, "a")
			checkWords(t, "at first", pullAll(t, s), []string{"hub:open@0 fresh", "1"})
			publishLoad(t, h, 3, "a")
			publishLoad(t, h, 2, "b")
			checkWords(t, "then", summary(t, pending(t, s)), tc.then)
			publishLoad(t, h, 1, "a")
			checkWords(t, "afterwards", summary(t, pending(t, s)), []string{"7"})
		})
	}
}

// TestLagCountsNoReplay holds that what a stream replays when it opens is not lag,
// be it in memory or in the record, while what is published meanwhile is.
func TestLagCountsNoReplay(t *testing.T) {
	for _, where := range []string{"memory", "record"} {
		for _, items := range [][]string{{"a"}, {"a", "b"}} {
			t.Run(fmt.Sprint(where, " ", items), func(t *testing.T) {
				h := newHubOn(t, newKeeper(), sse.Options{})
				publishLoad(t, h, 60, "a")
				if where == "record" {
					h.EvictAll()
				}
				s := tuned(t, h, events(3), after(h, 10), items...)
				other := tuned(t, h, events(3), after(h, 10), items...)
				publishLoad(t, h, 3, "a")
				checkWords(t, "all is given", withoutCursors(pullAll(t, s)), words([]string{"hub:open@10 complete"}, seqs(11, 63)))
				publishLoad(t, h, 1, "a")
				checkWords(t, "too much came meanwhile", pullAll(t, other), []string{"hub:open@10 complete", fmt.Sprintf("hub:reset@%d reset a=limit", 64-54*(len(items)-1))})
			})
		}
	}
}

// TestLagBeyondMemory holds that events which are only in the record count, and
// those which are gone from it.
func TestLagBeyondMemory(t *testing.T) {
	for _, tc := range []struct {
		name  string
		may   int64
		slow  bool
		trim  uint64
		wants []string
	}{
		{"recorded, within", 200, false, 0, seqs(1, 200)},
		{"recorded, beyond", 150, false, 0, []string{"hub:reset@200 reset a=limit"}},
		{"recorded, beyond, disconnect", 150, true, 0, []string{"slow"}},
		{"gone, beyond", 150, false, 150, []string{"hub:reset@200 reset a=limit"}},
		{"gone", 200, false, 150, []string{"hub:reset@200 reset a=expired"}},
		{"gone, no limit", -1, false, 150, []string{"hub:reset@200 reset a=expired"}},
		{"gone, no limit, disconnect", -1, true, 150, []string{"slow"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := newKeeper()
			h := newHubOn(t, k, sse.Options{})
			options := events(tc.may)
			if tc.slow {
				options = disconnect(options)
			}
			s := tuned(t, h, options, sse.Latest(), "a")
			publishLoad(t, h, 190, "a")
			h.EvictAll()
			publishLoad(t, h, 10, "a")
			k.trim(tc.trim)
			frames, _, closing := s.Pull()
			got := append(summary(t, frames), strings.Fields(string(closing))...)
			if closing == "" {
				got = append(got, summary(t, pending(t, s))...)
			}
			checkWords(t, "got", withoutCursors(got), tc.wants)
		})
	}
}

// TestSlowDisconnect holds that a stream which is to end rather than to be reset
// is ended, that its client gets all that it missed when it comes back, and that
// what cannot be had then is told by its first frame.
func TestSlowDisconnect(t *testing.T) {
	for _, items := range [][]string{{"a"}, {"a", "b"}, {"*"}} {
		t.Run(fmt.Sprint(items), func(t *testing.T) {
			h := newHub(t, sse.Options{})
			s := tuned(t, h, disconnect(events(3)), sse.Latest(), items...)
			publishLoad(t, h, 4, "a")
			if _, err := h.Publish(t.Context(), sse.Event{Channels: []string{"a"}, End: sse.EndOnly}); err != nil {
				t.Fatal(err) // where a channel ends, pulling is another matter
			}
			if frames, _, closing := s.Pull(); closing != sse.CloseSlow || len(frames) > 0 {
				t.Errorf("got %q and the end %q", frames, closing)
			}
			back := tuned(t, h, disconnect(events(3)), after(h, 0), items...)
			checkWords(t, "comes back", summary(t, firstFrames(back)), words([]string{"hub:open@0 complete"}, seqs(1, 4), []string{`hub:end {"channel":"a"}`}))
			h.EvictAll()
			late := tuned(t, h, disconnect(events(3)), after(h, 0), append(items, "c")...)
			if got := summary(t, late.OpenFrame()); !strings.Contains(got[0], "expired") {
				t.Errorf("who comes late is told %q", got)
			}
		})
	}
	h := newHub(t, sse.Options{})
	s := tuned(t, h, disconnect(sse.StreamOptions{}), sse.Latest(), "a")
	publishLoad(t, h, 4, "a")
	h.EvictAll()
	if _, _, closing := s.Pull(); closing != sse.CloseSlow {
		t.Errorf("what is no longer kept ends the stream with %q", closing)
	}
}

// firstFrames returns what a stream begins with, until it ends or has all.
func firstFrames(s *sse.Subscriber) []byte {
	frames := s.OpenFrame()
	for {
		b, _, closing := s.Pull()
		if len(b) == 0 || closing != "" {
			return frames
		}
		frames = append(frames, b...)
	}
}

// TestLagIsTuned holds that the settings of an open stream can be changed.
func TestLagIsTuned(t *testing.T) {
	h := newHub(t, sse.Options{})
	tuning := sse.NewTuning(events(1))
	s := subscribe(t, h, sse.Latest(), "a")
	s.Tune(tuning)
	publishLoad(t, h, 2, "a")
	tuning.Set(events(2))
	checkWords(t, "more is allowed", pullAll(t, s), []string{"hub:open@0 fresh", "1", "2"})
	publishLoad(t, h, 2, "a")
	tuning.Set(events(1))
	checkWords(t, "less is allowed", summary(t, pending(t, s)), []string{"hub:reset@4 reset a=limit"})
	publishLoad(t, h, 2, "a")
	tuning.Set(disconnect(events(1)))
	if _, _, closing := s.Pull(); closing != sse.CloseSlow {
		t.Errorf("the stream ends with %q", closing)
	}
}

// TestLagOfAddedChannel holds that what a channel had before it was added to a
// stream is no lag of that stream.
func TestLagOfAddedChannel(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := subscribeWith(t, h, sse.SubscribeOptions{Connection: "c", Channels: []string{"a"}})
	s.Tune(sse.NewTuning(events(3)))
	publishLoad(t, h, 2, "a")
	publishLoad(t, h, 9, "b")
	if _, err := h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"b"}}); err != nil {
		t.Fatal(err)
	}
	publishLoad(t, h, 1, "b")
	if s.Lagging() { // which sees that the stream is changed
		t.Error("it lags by what it does not get yet")
	}
	publishLoad(t, h, 1, "b")
	if s.Lagging() {
		t.Error("it lags by what it does not get yet")
	}
	checkWords(t, "all", pullAll(t, s), []string{"hub:open@0 fresh", "1", "2", "11:hub:channels", "12", "13"})
}

// TestLagging holds what an engine is told that does not pull, and that nothing is
// lost by asking.
func TestLagging(t *testing.T) {
	for _, items := range [][]string{{"a"}, {"a", "b"}, {"*"}} {
		t.Run(fmt.Sprint(items), func(t *testing.T) {
			h := newHubOn(t, newKeeper(), sse.Options{})
			s := tuned(t, h, disconnect(events(3)), sse.Latest(), items...)
			for i := range 5 {
				if got, want := s.Lagging(), i > 3; got != want {
					t.Errorf("behind by %d, it lags too far: %v", i, got)
				}
				publishLoad(t, h, 1, "a")
			}
			s.Tune(sse.NewTuning(sse.StreamOptions{}))
			if s.Lagging() {
				t.Error("it lags too far without a limit")
			}
			checkWords(t, "all", pullAll(t, s), words([]string{"hub:open@0 fresh"}, seqs(1, 5)))

			publishLoad(t, h, 20, "a")
			h.EvictAll()
			s.Pull()                   // the first page
			publishLoad(t, h, 20, "a") // 13 are in the record, and memory has these
			s.Tune(sse.NewTuning(events(15)))
			if !s.Lagging() {
				t.Error("in the record, it does not lag too far")
			}
		})
	}
}

// TestLagIsKnown holds that how far a stream is behind is known exactly while
// memory has what it needs, and well enough afterwards, and never thought more than
// it is.
func TestLagIsKnown(t *testing.T) {
	const events = 40_000
	h := newHub(t, sse.Options{HistoryCount: 1})
	publishN(t, h, 10_000, "b") // so that all ids are as long
	from := make(map[int]*sse.Subscriber)
	for i := range events {
		if i%100 == 0 {
			from[i] = subscribe(t, h, sse.Latest(), "a")
		}
		publish(t, h, load, "a")
	}
	frame := int64(len(sse.AppendEvent(nil, at(h, 12345), &sse.Event{Data: load})))
	evicted, known := h.Evicted("a")
	if !known || evicted < events*3/4 {
		t.Fatalf("evicted up to %d, known: %v", evicted, known)
	}
	for i, s := range from {
		got, want := s.Lag(), int64(events-i)*frame
		switch kept := uint64(10_000+i) >= evicted; {
		case kept && got != want:
			t.Errorf("behind %d, in memory: a lag of %d, want %d", i, got, want)
		case got > want || got < want/2:
			t.Errorf("behind %d: a lag of %d, it is %d", i, got, want)
		}
	}
}

// TestSlowWrite holds why a stream ends whose write failed because its client did
// not read in time: it was slow, unless the stream was to end anyway.
func TestSlowWrite(t *testing.T) {
	for _, tc := range []struct {
		name string
		err  error
		told func(l *live)
		want sse.CloseReason
	}{
		{"deadline", fmt.Errorf("write: %w", os.ErrDeadlineExceeded), nil, sse.CloseSlow},
		{"another error", errors.New("broken pipe"), nil, sse.CloseClient},
		{"deadline, as the server cancels the request", os.ErrDeadlineExceeded, func(l *live) { l.stop(); synctest.Wait() }, sse.CloseSlow},
		{"interrupted because the client left", os.ErrDeadlineExceeded, func(l *live) { l.stop(); time.Sleep(time.Minute) }, sse.CloseClient},
		{"interrupted by a drain", os.ErrDeadlineExceeded, func(l *live) { l.sub.Close(sse.CloseDrain) }, sse.CloseDrain},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, sse.Options{})
				w, entered, goOn := &recorder{}, make(chan struct{}), make(chan struct{})
				l := startStream(t, subscribe(t, h, sse.Latest(), "a"), w, quiet)
				synctest.Wait()
				w.onWrite = func([]byte) (int, error) { entered <- struct{}{}; <-goOn; return 0, tc.err }
				publish(t, h, "x", "a")
				<-entered
				if tc.told != nil {
					tc.told(l)
				}
				close(goOn)
				<-l.done
				if l.end.Reason != tc.want || !errors.Is(l.end.Err, tc.err) || h.Stats().Closed[tc.want] != 1 {
					t.Errorf("the end is %+v, want %s; counted: %v", l.end, tc.want, h.Stats().Closed)
				}
			})
		})
	}
}

// TestLagStream holds that a stream which blocks and goes on is ended with
// hub:close, or skipped ahead, and that both are counted.
func TestLagStream(t *testing.T) {
	for _, tc := range []struct {
		options sse.StreamOptions
		want    string
		counted func(sse.Stats) uint64
	}{
		{events(3), "hub:reset@6 reset a=limit", func(s sse.Stats) uint64 { return s.Resets[sse.ResetLimit] }},
		{disconnect(events(3)), `hub:close {"reason":"slow"}`, func(s sse.Stats) uint64 { return s.Closed[sse.CloseSlow] }},
	} {
		t.Run(tc.want, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, sse.Options{})
				w, gate := &recorder{}, make(chan struct{})
				tc.options.Keepalive = -1
				l := startStream(t, subscribe(t, h, sse.Latest(), "a"), w, tc.options)
				synctest.Wait()
				w.onWrite = func(p []byte) (int, error) { <-gate; return len(p), nil }
				publishLoad(t, h, 1, "a")
				synctest.Wait()
				publishLoad(t, h, 5, "a")
				close(gate)
				synctest.Wait()
				checkWords(t, "got", summary(t, l.bytes()), []string{"hub:open@0 fresh", "1", tc.want})
				if got := tc.counted(h.Stats()); got != 1 {
					t.Errorf("%d are counted", got)
				}
			})
		})
	}
}
