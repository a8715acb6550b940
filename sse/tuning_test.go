package sse_test

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// retune changes the settings of an open stream.
func (l *live) retune(tuning *sse.Tuning, options sse.StreamOptions) {
	tuning.Set(options)
	l.sub.Retune(1)
	synctest.Wait()
}

// TestRetuneKeepalive holds that a changed keepalive is that of an open stream at
// once, and not only when the timer of the one before fires, which may be never.
func TestRetuneKeepalive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tuning := sse.NewTuning(quiet)
		l := startTuned(t, subscribe(t, newHub(t, sse.Options{}), sse.Latest(), "a"), &recorder{}, tuning)
		count := func() int { return len(summary(t, l.bytes())) - 1 }
		time.Sleep(time.Hour)
		for _, step := range []struct {
			name        string
			keepalive   time.Duration
			least, most int
		}{
			{"off", -1, 0, 0},
			{"of an hour", time.Hour, 1, 1}, // it has been silent for that long
			{"of ten seconds", 10 * time.Second, 6, 8},
			{"off again", -1, 0, 0},
			{"the default", 0, 4, 6},
		} {
			before := count()
			l.retune(tuning, sse.StreamOptions{Keepalive: step.keepalive})
			time.Sleep(62 * time.Second)
			if got := count() - before; got < step.least || got > step.most {
				t.Errorf("%s: %d keepalives in a minute, want %d to %d", step.name, got, step.least, step.most)
			}
		}
	})
}

// TestRetuneMaxAge holds that a changed greatest age counts from when the stream
// was opened, and that those which are older already end soon, but not all at
// once.
func TestRetuneMaxAge(t *testing.T) {
	const age = 1000 * time.Second
	for _, tc := range []struct {
		name        string
		before      time.Duration
		changed     time.Duration // when
		after       time.Duration
		least, most time.Duration // when they end
	}{
		{"younger", 0, age / 2, age, age * 9 / 10, age},
		{"older", 0, 5 * age, age, 5 * age, 5*age + age/10 + 1},
		{"longer", age, age / 2, 3 * age, 3 * age * 9 / 10, 3 * age},
		{"off", age, age / 2, -1, 20 * age, 20 * age},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h, start := newHub(t, sse.Options{}), time.Now()
				tuning := sse.NewTuning(sse.StreamOptions{MaxAge: tc.before, Keepalive: -1})
				var open []*live
				for range 20 {
					open = append(open, startTuned(t, subscribe(t, h, sse.Latest(), "a"), &recorder{}, tuning))
				}
				time.Sleep(tc.changed)
				for _, l := range open {
					l.retune(tuning, sse.StreamOptions{MaxAge: tc.after, Keepalive: -1})
				}
				time.Sleep(20*age - time.Since(start))
				for _, l := range open {
					l.sub.Close(sse.CloseDrain)
				}
				times := make(map[time.Duration]bool)
				for _, l := range open {
					<-l.done
					flushes := l.flushed()
					at := flushes[len(flushes)-1].when.Sub(start)
					times[at] = true
					if at < tc.least || at > tc.most {
						t.Errorf("a stream ended after %v (%s), want %v to %v", at, l.end.Reason, tc.least, tc.most)
					}
				}
				if len(times) < 15 && tc.least != tc.most {
					t.Errorf("20 streams ended at %d times", len(times))
				}
			})
		})
	}
}

// TestRetuneAlwaysBehind holds that a stream which always has more to write takes
// on its settings too.
func TestRetuneAlwaysBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, tuning := newHub(t, sse.Options{}), sse.NewTuning(quiet)
		writes := 0
		w := &recorder{onWrite: func(p []byte) (int, error) {
			if writes++; writes < 1000 {
				publish(t, h, "x", "a")
				time.Sleep(time.Second)
			}
			return len(p), nil
		}}
		l := startTuned(t, subscribe(t, h, sse.Latest(), "a"), w, tuning)
		time.Sleep(10 * time.Second)
		tuning.Set(sse.StreamOptions{MaxAge: 20 * time.Second})
		time.AfterFunc(time.Hour, l.stop)
		<-l.done
		if l.end.Reason != sse.CloseExpired || l.end.Events > 25 {
			t.Errorf("the end is %+v", l.end)
		}
	})
}

// TestRetuneCrowd holds a bug: a reload that changed two settings of a route woke each
// of its streams twice, and each time as if it were alone, so that the event of a single
// stream waited until all had looked at their settings.
func TestRetuneCrowd(t *testing.T) {
	s := subscribe(t, newHub(t, sse.Options{}), sse.Latest(), "a")
	var woken []int
	s.AttachCrowd(func(crowd int) { woken = append(woken, crowd) })
	s.SetRetry(time.Minute)
	s.Retune(100_000)
	if !slices.Equal(woken, []int{100_000}) {
		t.Errorf("it was woken with %d, want once with 100,000", woken)
	}
}

// TestSetRetry holds that a client is told a changed reconnection time, once, with
// the next keepalive or with the last frame.
func TestSetRetry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{})
		l := startStream(t, subscribe(t, h, sse.Latest(), "a"), &recorder{}, sse.StreamOptions{Keepalive: 10 * time.Second})
		synctest.Wait()
		opened := len(l.bytes())
		l.sub.SetRetry(time.Minute)
		l.sub.Retune(1)
		time.Sleep(25 * time.Second)
		told := string(l.bytes()[opened:])
		if frame, _, _ := strings.Cut(told, "\n\n"); !strings.HasPrefix(frame, "retry: ") || !strings.HasSuffix(frame, "\n: keepalive") || strings.Count(told, "retry") != 1 {
			t.Errorf("the keepalives are %q, want a retry with the first", told)
		}
		l.sub.SetRetry(time.Hour)
		l.sub.Retune(1)
		l.sub.Close(sse.CloseDrain)
		<-l.done
		if last := l.bytes(); retryOf(t, last[opened:]) < time.Hour {
			t.Errorf("the last frame has a retry of %v, want an hour or more", retryOf(t, last[opened:]))
		}
	})
}

// retryOf returns the reconnection time that frames tell at last.
func retryOf(t testing.TB, frames []byte) time.Duration {
	t.Helper()
	text := string(frames)
	ms, _, _ := strings.Cut(text[strings.LastIndex(text, "retry: ")+len("retry: "):], "\n")
	d, err := time.ParseDuration(ms + "ms")
	if err != nil {
		t.Fatalf("%s: %q", err, frames)
	}
	return d
}
