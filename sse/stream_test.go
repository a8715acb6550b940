package sse_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A live is a stream that runs on a goroutine of its own.
type live struct {
	*recorder
	sub  *sse.Subscriber
	end  sse.End
	done chan struct{} // closed when it has ended
	stop context.CancelFunc
}

// quiet is a stream without keepalives.
var quiet = sse.StreamOptions{Keepalive: -1}

func startStream(t testing.TB, s *sse.Subscriber, w *recorder, options sse.StreamOptions) *live {
	return startTuned(t, s, w, sse.NewTuning(options))
}

func startTuned(t testing.TB, s *sse.Subscriber, w *recorder, tuning *sse.Tuning) *live {
	ctx, cancel := context.WithCancel(t.Context())
	l := &live{recorder: w, sub: s, done: make(chan struct{}), stop: cancel}
	go func() {
		l.end = s.Stream(ctx, w, tuning)
		close(l.done)
	}()
	t.Cleanup(func() { cancel(); <-l.done })
	return l
}

func (l *live) ended() bool {
	select {
	case <-l.done:
		return true
	default:
		return false
	}
}

// TestStreamStart holds that the status, the header and the first frame leave at
// once, before any event exists.
func TestStreamStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{})
		l := startStream(t, subscribe(t, h, sse.Latest(), "a"), &recorder{}, quiet)
		synctest.Wait()
		checkWords(t, "at once", summary(t, l.bytes()), []string{"hub:open@0 fresh"})
		if got := l.flushed(); len(got) != 1 || got[0].bytes != len(l.bytes()) {
			t.Errorf("flushed %v of %d bytes", got, len(l.bytes()))
		}
		want := http.Header{"Content-Type": {"text/event-stream"}, "Cache-Control": {"no-cache, no-transform"}, "X-Accel-Buffering": {"no"}}
		if l.status != http.StatusOK || fmt.Sprint(l.header) != fmt.Sprint(want) {
			t.Errorf("status %d, header %v", l.status, l.header)
		}
		l.stop()
		<-l.done
		if l.end.Reason != sse.CloseClient || l.end.Err != nil || l.end.Events != 0 || l.end.Bytes != uint64(len(l.bytes())) {
			t.Errorf("the end is %+v", l.end)
		}
	})
}

// TestStreamOneFlush holds that all that is pending leaves with one flush, and
// that a lot of it is flushed now and then.
func TestStreamOneFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{})
		publishN(t, h, 500, "a")
		publishN(t, h, 500, "b")
		l := startStream(t, subscribe(t, h, sse.Earliest(), "a", "b"), &recorder{}, quiet)
		synctest.Wait()
		if got := l.flushed(); len(got) != 2 || got[1].bytes != len(l.bytes()) {
			t.Errorf("a replay: flushed %v of %d bytes, want the first frame and the rest", got, len(l.bytes()))
		}
		if _, err := h.Publish(t.Context(), make3Events("a", "b", "a")...); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		got := l.flushed()
		if len(got) > 5 || got[len(got)-1].bytes != len(l.bytes()) {
			t.Errorf("live: flushed %v of %d bytes", got, len(l.bytes()))
		}
		if stream := summary(t, l.bytes()); len(stream) != 1+1003 {
			t.Errorf("%d frames, want 1004", len(stream))
		}

		large := strings.Repeat("x", 20_000)
		for range 50 {
			publish(t, h, large, "c")
		}
		l = startStream(t, subscribe(t, h, sse.Earliest(), "c"), &recorder{}, quiet)
		synctest.Wait()
		last := 0
		for _, f := range l.flushed() {
			if f.bytes-last > sse.FlushBytes+2*sse.SegmentBytes {
				t.Errorf("%d bytes at once", f.bytes-last)
			}
			last = f.bytes
		}
		if last < 50*20_000 || last != len(l.bytes()) || len(l.flushed()) > 6 {
			t.Errorf("flushed %v of %d bytes", l.flushed(), len(l.bytes()))
		}
	})
}

func make3Events(channels ...string) (events []sse.Event) {
	for _, name := range channels {
		events = append(events, sse.Event{Channels: []string{name}})
	}
	return events
}

// TestStreamKeepalive holds that no silence is longer than the keepalive nor
// much shorter, that it is drawn, and that a keepalive has an id exactly if the
// head moved past the client's.
func TestStreamKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const keepalive = 20 * time.Second
		h := newHub(t, sse.Options{})
		l := startStream(t, subscribe(t, h, sse.Latest(), "a"), &recorder{}, sse.StreamOptions{Keepalive: keepalive})
		synctest.Wait()
		step := func(what string, want ...string) {
			t.Helper()
			time.Sleep(keepalive)
			synctest.Wait()
			checkWords(t, what, summary(t, l.bytes())[1:], want)
		}
		step("silence", "keepalive@0")
		publishN(t, h, 2, "other")
		step("others' events", "keepalive@0", "keepalive@2")
		time.Sleep(3 * time.Second)
		publishN(t, h, 1, "a")
		time.Sleep(keepalive / 2)
		synctest.Wait()
		if !strings.HasSuffix(string(l.bytes()), "data: 3\n\n") {
			t.Errorf("a keepalive too soon after an event: %q", l.bytes()[len(l.bytes())-60:])
		}
		time.Sleep(100 * keepalive)
		synctest.Wait()
		gaps := make(map[time.Duration]bool)
		flushes := l.flushed()
		for i, f := range flushes[1:] {
			gap := f.when.Sub(flushes[i].when)
			gaps[gap] = true
			if gap > keepalive || (gap < keepalive*3/4 && i > 3) {
				t.Errorf("flush %d after %v of silence, want %v to %v", i+1, gap, keepalive*3/4, keepalive)
			}
		}
		if len(gaps) < 50 {
			t.Errorf("%d different silences: streams fall into step", len(gaps))
		}
		for _, word := range summary(t, l.bytes())[5:] {
			if word != "keepalive@0" {
				t.Fatalf("%s although the head did not move", word)
			}
		}
		if stats := h.Stats(); stats.Delivered != 1 {
			t.Errorf("delivered %d, want 1: keepalives are none", stats.Delivered)
		}
	})
}

// TestStreamNoKeepalive holds that a negative keepalive is none, and zero the
// default.
func TestStreamNoKeepalive(t *testing.T) {
	for _, tc := range []struct {
		name      string
		keepalive time.Duration
		most      int
		least     int
	}{{"off", -1, 0, 0}, {"default", 0, 320, 240}} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, sse.Options{})
				l := startStream(t, subscribe(t, h, sse.Latest(), "a"), &recorder{}, sse.StreamOptions{Keepalive: tc.keepalive})
				time.Sleep(time.Hour)
				if got := len(summary(t, l.bytes())) - 1; got > tc.most || got < tc.least {
					t.Errorf("%d keepalives in an hour, want %d to %d", got, tc.least, tc.most)
				}
			})
		})
	}
}

// TestStreamMaxAge holds that a stream ends at its age, less up to a tenth, with
// a last frame that says so.
func TestStreamMaxAge(t *testing.T) {
	const age = 100 * time.Second
	for _, tc := range []struct {
		name    string
		options sse.StreamOptions
		publish bool // all the time, also while it writes
	}{
		{"silent", sse.StreamOptions{MaxAge: age}, false},
		{"without keepalives", sse.StreamOptions{MaxAge: age, Keepalive: -1}, false},
		{"always behind", sse.StreamOptions{MaxAge: age}, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, sse.Options{})
				start := time.Now()
				w := &recorder{}
				if tc.publish { // a client that reads as fast as is published, but not faster
					w.onWrite = func(p []byte) (int, error) {
						if time.Since(start) < 10*age {
							publish(t, h, "x", "a")
							time.Sleep(time.Second)
						}
						return len(p), nil
					}
				}
				l := startStream(t, subscribe(t, h, sse.Latest(), "a"), w, tc.options)
				<-l.done
				if took := time.Since(start); took > age+3*time.Second || took < age*9/10 {
					t.Errorf("the stream ended after %v, want %v to %v", took, age*9/10, age)
				}
				got := summary(t, l.bytes())
				if last := got[len(got)-1]; last != `hub:close {"reason":"expired"}` || l.end.Reason != sse.CloseExpired || l.end.Err != nil {
					t.Errorf("the last frame is %s, the end %+v", last, l.end)
				}
			})
		})
	}
}

// TestStreamCancelled holds that a stream whose context is done ends, also if
// there is always more to write.
func TestStreamCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{})
		writes := 0
		w := &recorder{onWrite: func(p []byte) (int, error) {
			if writes++; writes < 1000 {
				publish(t, h, "x", "a")
				time.Sleep(time.Second)
			}
			return len(p), nil
		}}
		l := startStream(t, subscribe(t, h, sse.Latest(), "a"), w, quiet)
		time.Sleep(10500 * time.Millisecond)
		l.stop()
		<-l.done
		if writes > 20 || l.end.Reason != sse.CloseClient {
			t.Errorf("after 10 s of a write a second there were %d; the end is %+v", writes, l.end)
		}
	})
}

// TestStreamClose holds that a stream that the hub ends returns at once, with a
// last frame that tells the reason and when to come back, and is counted.
func TestStreamClose(t *testing.T) {
	for _, tc := range []struct {
		name   string
		close  func(h *sse.Hub, s *sse.Subscriber)
		reason sse.CloseReason
	}{
		{"Subscriber.Close", func(_ *sse.Hub, s *sse.Subscriber) { s.Close(sse.CloseExpired) }, sse.CloseExpired},
		{"the first reason counts", func(_ *sse.Hub, s *sse.Subscriber) { s.Close("kicked"); s.Close(sse.CloseDrain) }, "kicked"},
		{"Drain", func(h *sse.Hub, _ *sse.Subscriber) { h.Drain(context.Background(), 0) }, sse.CloseDrain},
		{"Hub.Close", func(h *sse.Hub, _ *sse.Subscriber) { h.Close() }, sse.CloseDrain},
		{"Hub.Close twice", func(h *sse.Hub, _ *sse.Subscriber) { h.Close(); h.Close() }, sse.CloseDrain},
	} {
		for _, when := range []string{"before it starts", "while it is idle", "while it has more to write"} {
			t.Run(tc.name+" "+when, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					h := newHub(t, sse.Options{})
					s := subscribe(t, h, sse.Latest(), "a")
					w := &recorder{}
					switch when {
					case "before it starts":
						tc.close(h, s)
					case "while it has more to write":
						once := sync.OnceFunc(func() { publish(t, h, "x", "a"); tc.close(h, s) })
						w.onWrite = func(p []byte) (int, error) { once(); return len(p), nil }
					}
					l := startStream(t, s, w, quiet)
					synctest.Wait()
					if when == "while it is idle" {
						tc.close(h, s)
						synctest.Wait()
					}
					if !l.ended() {
						t.Fatal("the stream does not return")
					}
					checkWords(t, "stream", summary(t, l.bytes()), []string{"hub:open@0 fresh", fmt.Sprintf(`hub:close {"reason":"%s"}`, tc.reason)})
					if l.end.Reason != tc.reason || l.end.Err != nil {
						t.Errorf("the end is %+v", l.end)
					}
					last := blocks(t, l.bytes())[1]
					if !last.id.IsZero() || !strings.Contains(string(l.bytes()), "retry: ") {
						t.Errorf("the last frame is %v", last)
					}
					if got := h.Stats(); got.Streams != 0 || (slices.Contains(sse.CloseReasons(), tc.reason) && got.Closed[tc.reason] != 1) {
						t.Errorf("afterwards: %+v", got)
					}
				})
			})
		}
	}
}

// TestDrain holds that streams are closed spread over the time that a drain
// takes, that nobody can join meanwhile, and that its context ends the wait.
func TestDrain(t *testing.T) {
	for _, tc := range []struct {
		name        string
		over        time.Duration
		cancelAfter time.Duration
		least, most time.Duration
	}{
		{"spread", 10 * time.Second, time.Hour, 900 * time.Millisecond, 1100 * time.Millisecond}, // 2 ms each
		{"in less", 100 * time.Millisecond, time.Hour, 90 * time.Millisecond, 100 * time.Millisecond},
		{"at once", 0, time.Hour, 0, 0},
		{"cut short", 10 * time.Second, 50 * time.Millisecond, 50 * time.Millisecond, 51 * time.Millisecond},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, sse.Options{})
				var all []*live
				for range 500 {
					all = append(all, startStream(t, subscribe(t, h, sse.Latest(), "a"), &recorder{}, quiet))
				}
				synctest.Wait()
				start := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), tc.cancelAfter)
				defer cancel()
				drained := make(chan struct{})
				go func() { h.Drain(ctx, tc.over); close(drained) }()
				if tc.over > 0 {
					time.Sleep(tc.least / 2)
					synctest.Wait()
					if open := h.Stats().Streams; tc.cancelAfter > tc.over && (open < 150 || open > 350) {
						t.Errorf("half-way %d of 500 streams are open", open)
					}
					if _, err := h.Subscribe(t.Context(), sse.SubscribeOptions{Channels: []string{"a"}}); !errors.Is(err, sse.ErrDraining) {
						t.Errorf("Subscribe: %v", err)
					}
				}
				<-drained
				if took := time.Since(start); took < tc.least || took > tc.most {
					t.Errorf("the drain took %v, want %v to %v", took, tc.least, tc.most)
				}
				synctest.Wait()
				for _, l := range all {
					if !l.ended() || l.end.Reason != sse.CloseDrain {
						t.Fatalf("a stream ended: %v, %+v", l.ended(), l.end)
					}
				}
				if _, err := h.Publish(t.Context(), sse.Event{Channels: []string{"a"}}); err != nil {
					t.Errorf("a draining hub still takes events: %v", err)
				}
			})
		})
	}
}

// A stuck writer blocks until its write deadline has passed.
type stuck struct {
	recorder
	from    int // bytes that it takes before
	limited chan struct{}
	once    sync.Once
}

func newStuck(from int) *stuck {
	w := &stuck{from: from, limited: make(chan struct{})}
	w.onWrite = func(p []byte) (int, error) {
		if w.from -= len(p); w.from >= 0 {
			return len(p), nil
		}
		<-w.limited
		return 0, os.ErrDeadlineExceeded
	}
	w.onLimit = func(at time.Time) error {
		if !at.After(time.Now()) {
			w.once.Do(func() { close(w.limited) })
		}
		return nil
	}
	return w
}

// A wrapper is as middleware is: it hides all but Unwrap, and its deadline must
// not be set while a write goes on.
type wrapper struct{ http.ResponseWriter }

func (w wrapper) Unwrap() http.ResponseWriter      { return w.ResponseWriter }
func (w wrapper) SetWriteDeadline(time.Time) error { panic("the wrapper's deadline is set") }

// TestStreamInterrupted holds that a stream whose client does not read ends soon
// after it was told to, by a deadline on the innermost writer.
func TestStreamInterrupted(t *testing.T) {
	for _, tc := range []struct {
		name string
		from int // bytes that the client reads
		when string
		want sse.CloseReason
	}{
		{"in the first frame, closed before", 0, "before", sse.CloseDrain},
		{"in the first frame", 0, "blocked", sse.CloseDrain},
		{"in an event", 1000, "blocked", sse.CloseDrain},
		{"in the last frame", 1000, "idle", sse.CloseDrain},
		{"in an event, at its age", 1000, "aged", sse.CloseExpired},
		{"in an event, cancelled", 1000, "cancelled", sse.CloseClient},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, sse.Options{})
				s := subscribe(t, h, sse.Latest(), "a")
				w := newStuck(tc.from)
				t.Cleanup(func() { w.once.Do(func() { close(w.limited) }) })
				if tc.when == "before" {
					s.Close(sse.CloseDrain)
				}
				options := quiet
				if tc.when == "aged" {
					options.MaxAge = 5 * time.Second
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				done := make(chan sse.End, 1)
				go func() { done <- s.Stream(ctx, wrapper{wrapper{w}}, sse.NewTuning(options)) }()
				synctest.Wait()
				if tc.when != "before" && tc.when != "idle" {
					publish(t, h, strings.Repeat("x", 1000), "a")
					synctest.Wait()
				}
				switch tc.when {
				case "idle":
					w.from = 0
					s.Close(sse.CloseDrain)
				case "blocked":
					s.Close(sse.CloseDrain)
				case "cancelled":
					cancel()
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				select {
				case end := <-done:
					if end.Reason != tc.want || !errors.Is(end.Err, os.ErrDeadlineExceeded) {
						t.Errorf("the end is %+v, want %s", end, tc.want)
					}
				default:
					t.Error("the stream goes on 10 s after it was closed")
				}
			})
		})
	}
}

// TestStreamNoLateDeadline holds that a writer is left alone once its handler
// has returned.
func TestStreamNoLateDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{})
		s := subscribe(t, h, sse.Latest(), "a")
		w := &recorder{onLimit: func(time.Time) error { t.Error("a deadline was set"); return nil }}
		l := startStream(t, s, w, quiet)
		synctest.Wait()
		s.Close(sse.CloseDrain)
		l.stop() // whatever Close does
		<-l.done
		s.Close(sse.CloseDrain)
		time.Sleep(time.Minute)
	})
}

// TestStreamWriteError holds that a stream ends as soon as a write or a flush
// fails, with the error, having counted what was written.
func TestStreamWriteError(t *testing.T) {
	broken := errors.New("broken pipe")
	for _, tc := range []struct {
		name      string
		writes    int // that succeed; negative for all
		flushes   int
		wantErr   error
		wantEvent uint64
	}{
		{"first write", 0, -1, broken, 0},
		{"first flush", -1, 0, broken, 0},
		{"later write", 1, -1, broken, 0},
		{"later flush", -1, 1, broken, 1},
		{"second event", 2, -1, broken, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := newHub(t, sse.Options{})
				w := &recorder{}
				w.onWrite = func(p []byte) (int, error) {
					if tc.writes == w.writes {
						return 3, broken
					}
					return len(p), nil
				}
				w.onFlush = func() error {
					if tc.flushes == len(w.flushed())-1 {
						return broken
					}
					return nil
				}
				l := startStream(t, subscribe(t, h, sse.Latest(), "a"), w, quiet)
				for range 2 {
					synctest.Wait()
					publish(t, h, "x", "a")
				}
				synctest.Wait()
				if !l.ended() {
					t.Fatal("the stream does not return")
				}
				if l.end.Reason != sse.CloseClient || !errors.Is(l.end.Err, tc.wantErr) || l.end.Events != tc.wantEvent || l.end.Bytes != uint64(len(l.bytes())) {
					t.Errorf("the end is %+v, %d bytes were taken", l.end, len(l.bytes()))
				}
				if got := h.Stats(); got.Streams != 0 || got.Closed[sse.CloseClient] != 1 {
					t.Errorf("afterwards: %+v", got)
				}
			})
		})
	}
}

// A deaf writer cannot flush.
type deaf struct{ header http.Header }

func (w deaf) Header() http.Header         { return w.header }
func (w deaf) WriteHeader(int)             {}
func (w deaf) Write(p []byte) (int, error) { return len(p), nil }

// TestStreamNoFlush holds that a writer that cannot be flushed is refused at
// once, not discovered by a client that waits.
func TestStreamNoFlush(t *testing.T) {
	h := newHub(t, sse.Options{})
	end := subscribe(t, h, sse.Latest(), "a").Stream(t.Context(), deaf{make(http.Header)}, sse.NewTuning(quiet))
	if !errors.Is(end.Err, http.ErrNotSupported) {
		t.Errorf("the end is %+v", end)
	}
}

// TestStreamBlocked holds that one who does not read holds up nobody, and when
// it reads again after its events were evicted gets a reset and then all later
// events.
func TestStreamBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{HistoryCount: 1})
		gate, blocked := make(chan struct{}), false
		slow := &recorder{}
		slow.onWrite = func(p []byte) (int, error) {
			if blocked {
				<-gate
				blocked = false
			}
			return len(p), nil
		}
		one := startStream(t, subscribe(t, h, sse.Latest(), "a", "b"), slow, quiet)
		other := startStream(t, subscribe(t, h, sse.Latest(), "a", "b"), &recorder{}, quiet)
		synctest.Wait()
		blocked = true
		publish(t, h, "x", "b") // 1, in which it blocks
		synctest.Wait()
		data := strings.Repeat("x", 1000)
		for range 200 { // 2 to 201: more than is kept
			publish(t, h, data, "a")
			synctest.Wait()
		}
		time.Sleep(2 * time.Minute) // is swept
		publish(t, h, "x", "b")     // 202
		synctest.Wait()
		checkWords(t, "the other", summary(t, other.bytes()), words([]string{"hub:open@0 fresh"}, seqs(1, 202)))
		checkWords(t, "blocked", summary(t, one.bytes()), []string{"hub:open@0 fresh"})
		close(gate)
		synctest.Wait()
		publish(t, h, "x", "a")
		publish(t, h, "x", "b")
		synctest.Wait()
		checkWords(t, "goes on", summary(t, one.bytes()), words([]string{"hub:open@0 fresh", "1", "hub:reset@1 reset a=expired", "202", "203", "204"}))
		if got := h.Stats().Resets[sse.ResetExpired]; got != 1 {
			t.Errorf("%d resets are counted, want 1", got)
		}
	})
}

// TestRefuse holds what one gets who is turned away: a stream that ends at once
// and asks to come back in 5 to 15 seconds.
func TestRefuse(t *testing.T) {
	h := newHub(t, sse.Options{})
	for range 50 {
		w := &recorder{}
		h.CountRefusal()
		if err := sse.Refuse(w); err != nil {
			t.Fatal(err)
		}
		checkWords(t, "refused", summary(t, w.bytes()), []string{`hub:close {"reason":"busy"}`})
		var retry int
		if _, err := fmt.Sscanf(string(w.bytes()), "retry: %d\n", &retry); err != nil || retry < 5000 || retry > 15000 || w.status != 200 {
			t.Errorf("status %d, %q: %v", w.status, w.bytes(), err)
		}
	}
	if got := h.Stats().Closed[sse.CloseBusy]; got != 50 {
		t.Errorf("%d are counted, want 50", got)
	}
}
