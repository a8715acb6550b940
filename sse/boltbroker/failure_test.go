package boltbroker

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

func isUnavailable(err error) bool {
	return errors.Is(err, sse.ErrUnavailable) && errors.Is(err, errDisk)
}

// Publishing fails with the reason when writing fails. Nobody sees anything of
// it, then or later, and the broker finds out by itself when writing works again.
func TestFailedWrite(t *testing.T) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t, file(t), Options{})
				d := onDisk(b)
				kept := publishEvents(t, b, withID("kept", "one"), ending("over"))
				live := listen(t, b, kept[1])
				d.set(failure.broken)
				before := state(t, b)

				_, err := b.Publish(context.Background(), []sse.Event{withID("lost", "lost"), ending("a"), on("b", strings.Repeat("l", 50_000))})
				if !isUnavailable(err) {
					t.Errorf("Publish: %v", err)
				}
				if err := b.Health(); !errors.Is(err, errDisk) {
					t.Errorf("Health: %v", err)
				}
				if now := state(t, b); now.Newest != before.Newest || !slices.Equal(now.Ended, before.Ended) {
					t.Errorf("the state became %+v", now)
				}
				want := []string{"one", ""}
				if got := stored(t, b); !slices.Equal(got, want) {
					t.Errorf("Read: %q", got)
				}
				if got := listen(t, b, before.Oldest).heard(); !slices.Equal(got, want) {
					t.Errorf("a new tail hears %q", got)
				}
				if got := live.heard(); len(got) > 0 {
					t.Errorf("the tail hears %q", got)
				}

				d.set(nil)
				time.Sleep(2 * probeEvery)
				if err := b.Health(); err != nil {
					t.Errorf("Health, after a while: %v", err)
				}
				if got := stored(t, b); !slices.Equal(got, want) {
					t.Errorf("Read, after a while: %q", got)
				}
				next := publishEvents(t, b, withID("lost", "two"), on("b", "three"))
				if next[0].Seq != 3 || next[1].Seq != 4 {
					t.Errorf("went on at %v", next)
				}
				if got := live.heard(); !slices.Equal(got, []string{"two", "three"}) {
					t.Errorf("the tail hears %q", got)
				}
				b = reopen(t, b, Options{})
				if got := stored(t, b); !slices.Equal(got, append(want, "two", "three")) {
					t.Errorf("opened again: %q", got)
				}
				if ended := state(t, b).Ended; !slices.Equal(ended, before.Ended) {
					t.Errorf("opened again, these have ended: %v", ended)
				}
			})
		})
	}
}

// A failed write is forgotten by the next publish too, without a probe between.
func TestPublishAfterFailedWrite(t *testing.T) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			b := open(t, file(t), Options{})
			d := onDisk(b)
			for i := range 5 {
				d.set(failure.broken)
				for range i {
					if _, err := b.Publish(context.Background(), []sse.Event{withID("x", "lost"), on("a", "lost"), withID("y", "lost")}); !isUnavailable(err) {
						t.Fatal(err)
					}
				}
				d.set(nil)
				if at := publish(t, b, "kept"); at[0].Seq != uint64(i+1) {
					t.Fatalf("went on at %v", at)
				}
				if err := b.Health(); err != nil {
					t.Error(err)
				}
			}
			b = reopen(t, b, Options{})
			if got := strings.Join(stored(t, b), " "); got != "kept kept kept kept kept" {
				t.Errorf("got %s", got)
			}
			if at := publishEvents(t, b, withID("x", "new")); at[0].Seq != 6 {
				t.Errorf("an id that was not kept is known: %v", at)
			}
		})
	}
}

// If the broker is closed right after a failed write, Close takes back what was
// refused, also of a write that is in doubt. A publisher that repeats it by its
// ID finds it not kept, and it is there once.
func TestReopenAfterFailedWrite(t *testing.T) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // no probe comes between
				b := open(t, file(t), Options{})
				d := onDisk(b)
				publish(t, b, "kept")
				d.set(failure.broken)
				refused := []sse.Event{withID("x", "x"), withID("y", "y")}
				if _, err := b.Publish(context.Background(), refused); !isUnavailable(err) {
					t.Fatal(err)
				}
				b = reopen(t, b, Options{})
				got := stored(t, b)
				if want := []string{"kept"}; !slices.Equal(got, want) {
					t.Errorf("got %q, want %q", got, want)
				}
				at := publishEvents(t, b, refused...)
				if at[0].Seq != 2 || at[1].Seq != 3 {
					t.Errorf("repeated at %v", at)
				}
				if got := stored(t, b); !slices.Equal(got, []string{"kept", "x", "y"}) {
					t.Errorf("got %q", got)
				}
			})
		})
	}
}

// Old events were given up between a commit in doubt and the next one. That wrote
// what was refused for good, and the record forgot that it was to be taken back:
// it was there when the file was opened again.
func TestTrimAfterFailedWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // no probe comes between
		b := open(t, file(t), Options{})
		d := onDisk(b)
		publish(t, b, "1", "2", "3", "4")
		d.set(inDoubt)
		if _, err := b.Publish(context.Background(), []sse.Event{on("a", "refused")}); !isUnavailable(err) {
			t.Fatal(err)
		}
		d.set(nil)
		b.SetOptions(Options{MaxEvents: 2}) // which begins to trim
		synctest.Wait()
		b = reopen(t, b, Options{})
		if got := stored(t, b); slices.Contains(got, "refused") {
			t.Errorf("got %q", got)
		}
	})
}

// While writing fails, each of those who share a commit gets the answer that it
// would get alone: repeats of what is kept are answered, a channel that has
// ended stays so, and one whose end could not be kept has not.
func TestAnswersOfAFailedCommit(t *testing.T) {
	for _, failure := range failures {
		t.Run(failure.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := open(t, file(t), Options{})
				d := onDisk(b)
				kept := publishEvents(t, b, withID("kept", "one"), ending("over"))
				d.set(failure.broken)
				release := d.hold()
				ctx := context.Background()
				first := ask(ctx, b, on("a", "holds the commit up"))
				ends := ask(ctx, b, ending("b"))
				late := ask(ctx, b, on("b", "after an end that was not kept"))
				over := ask(ctx, b, on("over", "after an end that was kept"))
				repeat := ask(ctx, b, withID("kept", "again"))
				mixed := ask(ctx, b, withID("kept", "again"), withID("new", "new"))
				again := ask(ctx, b, withID("new", "again"))
				inside := ask(ctx, b, ending("c"), on("c", "after the end in the same array"))
				nothing := ask(ctx, b)
				writes := d.count()
				release()

				for name, waits := range map[string]<-chan answer{"first": first, "ends": ends, "late": late, "mixed": mixed, "again": again} {
					if a := <-waits; !isUnavailable(a.err) || a.at != nil {
						t.Errorf("%s: %v, %v", name, a.at, a.err)
					}
				}
				for name, waits := range map[string]<-chan answer{"over": over, "inside": inside} {
					if a := <-waits; !isEnded(a.err) {
						t.Errorf("%s: %v, %v", name, a.at, a.err)
					}
				}
				if a := <-repeat; a.err != nil || !slices.Equal(a.at, kept[:1]) {
					t.Errorf("repeat: %v, %v", a.at, a.err)
				}
				if a := <-nothing; a.err != nil || len(a.at) > 0 {
					t.Errorf("nothing: %v, %v", a.at, a.err)
				}
				if n := d.count() - writes; n != 1 {
					t.Errorf("they shared %d commits", n)
				}
				if at, err := b.Publish(ctx, []sse.Event{withID("kept", "alone")}); err != nil || at[0] != kept[0] {
					t.Errorf("alone: %v, %v", at, err)
				}
			})
		})
	}
}

func isEnded(err error) bool {
	_, ok := errors.AsType[*sse.EndedError](err)
	return ok
}

// Health stays bad while probes fail. The operator is told when it begins and
// when it is over, not each time.
func TestHealthIsReportedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		b := open(t, file(t), Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
		d := onDisk(b)
		for range 2 {
			d.set(notWritten)
			for range 5 {
				if _, err := b.Publish(context.Background(), []sse.Event{on("a", "x")}); !isUnavailable(err) {
					t.Error(err)
				}
				time.Sleep(3 * probeEvery)
				if err := b.Health(); !errors.Is(err, errDisk) {
					t.Errorf("Health: %v", err)
				}
			}
			d.set(nil)
			time.Sleep(2 * probeEvery)
			if err := b.Health(); err != nil {
				t.Error(err)
			}
		}
		synctest.Wait() // it says so after Health does
		if n := strings.Count(log.String(), "level=ERROR"); n != 2 || !strings.Contains(log.String(), errDisk.Error()) || !strings.Contains(log.String(), b.path) {
			t.Errorf("%d errors are logged: %s", n, &log)
		}
		if n := strings.Count(log.String(), "can be written again"); n != 2 {
			t.Errorf("%d recoveries are logged: %s", n, &log)
		}
	})
}

// A logger that stands still holds up nobody who only looks.
func TestLoggerHoldsUpNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := make(chan struct{})
		b := open(t, file(t), Options{})
		b.SetOptions(Options{Logger: slog.New(stuck{slog.DiscardHandler, log})})
		onDisk(b).set(notWritten)
		publishing := ask(context.Background(), b, on("a", "x"))
		if err := b.Health(); !errors.Is(err, errDisk) {
			t.Errorf("Health: %v", err)
		}
		state(t, b)
		close(log)
		if a := <-publishing; !isUnavailable(a.err) {
			t.Error(a.err)
		}
	})
}

type stuck struct {
	slog.Handler
	until chan struct{}
}

func (s stuck) Enabled(context.Context, slog.Level) bool { return true }

func (s stuck) Handle(context.Context, slog.Record) error {
	<-s.until
	return nil
}
