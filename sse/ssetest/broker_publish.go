package ssetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

func dense(t *trial) {
	t.open(Retention{})
	state := t.state()
	next := state.Newest
	if state.Oldest != next || next.Seq != 0 || len(state.Ended) > 0 {
		t.Errorf("the state of a record that never had an entry is %+v", state)
	}
	if _, err := sse.ParsePosition(next.String()); err != nil {
		t.Errorf("the epoch cannot be written in a position: %v", err)
	}
	var all []sse.Event
	for n := range 20 {
		events := numbered("a", len(all), n%5+1)
		for i, p := range t.publish(events...) {
			if next.Seq++; p != next {
				t.Fatalf("event %d of the array is at %s where %s follows", i, p, next)
			}
		}
		if got := t.state().Newest; got != next {
			t.Errorf("the newest entry is at %s when the publish of %s has returned", got, next)
		}
		all = append(all, events...)
	}
	t.expect(all)
}

// colourful returns events whose fields take all kinds of values.
func colourful() []sse.Event {
	return []sse.Event{
		on("plain", "text"),
		{Channels: []string{"z", "a", "m"}, Name: "stockUpdate", Data: `{"price":101.5}`},
		{Channels: []string{"lines"}, Data: "one\ntwo\r\nthree\r\n\nfive\n"},
		{Channels: []string{"empty"}},
		{Channels: []string{"ünï-❄"}, Name: "größe", Data: "snow ❄ 雪 \u2028\x00 \uFFFD <&>"},
		{Channels: []string{"retry"}, Data: "later", Retry: 1500 * time.Millisecond},
		{Channels: []string{"retry"}, Retry: sse.MaxRetry},
		{Channels: []string{strings.Repeat("c", sse.MaxChannel)}, Name: strings.Repeat("n", sse.MaxName), ID: strings.Repeat("é", sse.MaxID/2)},
		{Channels: []string{"large"}, Data: strings.Repeat("0123456789abcdef", 16<<10)},
		{Channels: []string{"over", "out"}, Name: "last", Data: "bye", ID: "the end", End: sse.EndAfter},
		{Channels: []string{"silent"}, End: sse.EndOnly},
	}
}

func content(t *trial) {
	t.open(Retention{})
	events := colourful()
	for _, e := range events[:3] {
		t.publish(e)
	}
	handed := append([]sse.Event(nil), events[3:]...)
	t.publish(handed...)
	clear(handed) // the slice is ours again
	last := time.Time{}
	for _, e := range t.expect(events) {
		if e.Time.Before(last) {
			t.Errorf("the time of %s is %s, that of the entry before it %s", e.Position, e.Time, last)
		}
		if off := time.Since(e.Time).Abs(); off > time.Hour {
			t.Errorf("the time of %s is %s, which is %s from now", e.Position, e.Time, off)
		}
		last = e.Time
	}
}

func allOrNone(t *trial) {
	t.open(Retention{})
	over := on("over", "last")
	over.End = sse.EndAfter
	t.publish(over)
	before := t.state()

	end := on("goes on", "not the last")
	end.End, end.ID = sse.EndAfter, "end"
	_, err := t.broker.Publish(t.Context(), []sse.Event{
		named("a", "1", "one"), on("b", "2"), end, on("over", "too late"), named("a", "3", "three"),
	})
	if _, ok := errors.AsType[*sse.EndedError](err); !ok {
		t.Fatalf("error is %v, not an EndedError", err)
	}
	if after := t.state(); after.Newest != before.Newest || len(after.Ended) != len(before.Ended) {
		t.Errorf("a publish that failed changed the state from %+v to %+v", before, after)
	}

	// What failed is not known: the same IDs and channels work.
	again := []sse.Event{named("a", "1 again", "one"), end, named("a", "3 again", "three")}
	for i, p := range t.publish(again...) {
		if want := before.Newest.Seq + uint64(i) + 1; p.Seq != want {
			t.Errorf("event %d is at %s, not at %d: its ID is known from a publish that failed", i, p, want)
		}
	}
	t.expect(append([]sse.Event{over}, again...))
}

func doneContext(t *trial) {
	t.open(Retention{})
	t.publish(on("a", "1"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := t.broker.Publish(ctx, []sse.Event{named("a", "no", "id"), on("a", "no")})
	t.fails("Publish with a context that is done", err, context.Canceled)
	ctx, cancel = context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	_, err = t.broker.Publish(ctx, []sse.Event{on("a", "no")})
	t.fails("Publish after the deadline of its context", err, context.DeadlineExceeded)
	t.publish(named("a", "2", "id"))
	t.expect([]sse.Event{on("a", "1"), named("a", "2", "id")})
}

// An attempt is a publish of an array and what became of it.
type attempt struct {
	events    []sse.Event
	positions []sse.Position
	err       error
}

// settle holds the record to attempts that were made at once: it has the events
// of each at the positions that were returned, or none if it failed.
func (t *trial) settle(attempts []attempt, record []sse.Entry) {
	t.Helper()
	at := make(map[string]sse.Position)
	for i, e := range record {
		if e.Position.Seq != record[0].Position.Seq+uint64(i) {
			t.Fatalf("%s follows %s in the record", e.Position, record[i-1].Position)
		}
		if first, twice := at[e.Event.Data]; twice {
			t.Errorf("%q is at %s and at %s", e.Event.Data, first, e.Position)
		}
		at[e.Event.Data] = e.Position
	}
	kept := 0
	for _, a := range attempts {
		for i, e := range a.events {
			p, found := at[e.Data]
			switch {
			case a.err == nil && (!found || p != a.positions[i]):
				t.Errorf("%q was acknowledged at %s and is at %s", e.Data, a.positions[i], p)
			case a.err != nil && found:
				t.Errorf("%q is at %s; its publish failed: %v", e.Data, p, a.err)
			case found:
				kept++
			}
		}
	}
	if kept != len(record) {
		t.Errorf("%d of %d entries were published", kept, len(record))
	}
}

func cancelledPublish(t *trial) {
	t.open(Retention{})
	r := t.random()
	var all []attempt
	var mu sync.Mutex
	var wg sync.WaitGroup
	for publisher := range 4 {
		r := rand.New(rand.NewPCG(r.Uint64(), 0))
		wg.Go(func() {
			for n := range lasting(40, 2000) {
				ctx, cancel := context.WithCancel(t.Context())
				moment := []int{1, 20, 500, 3000}[r.IntN(4)] // brokers are fast and slow
				timer := time.AfterFunc(time.Duration(r.IntN(moment))*time.Microsecond, cancel)
				a := attempt{events: numbered("a", 0, 1+r.IntN(4))}
				for i := range a.events {
					a.events[i].Data = fmt.Sprintf("%d/%d/%d", publisher, n, i)
				}
				a.positions, a.err = t.broker.Publish(ctx, a.events)
				timer.Stop()
				cancel()
				mu.Lock()
				all = append(all, a)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	for _, a := range all {
		if a.err != nil {
			t.fails("Publish with a context that ended meanwhile", a.err, context.Canceled)
		}
	}
	t.settle(all, t.record())
}
