package ssetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

func repeats(t *trial) {
	t.open(Retention{})
	var all []sse.Event
	next := t.at(1)
	for _, step := range []struct {
		what   string
		events []sse.Event
		want   []uint64 // the seq of each; what is new follows the record
	}{
		{"the first", []sse.Event{named("a", "1", "x")}, []uint64{1}},
		{"a repeat", []sse.Event{named("a", "1", "x")}, []uint64{1}},
		{"a repeat with other content", []sse.Event{named("b", "other", "x")}, []uint64{1}},
		{"an event without an ID", []sse.Event{on("a", "2")}, []uint64{2}},
		{"another without an ID", []sse.Event{on("a", "2")}, []uint64{3}},
		{"twice in an array", []sse.Event{named("a", "4", "y"), named("a", "4", "y")}, []uint64{4, 4}},
		{"an array of repeats", []sse.Event{named("a", "4", "y"), named("a", "1", "x")}, []uint64{4, 1}},
		{
			"known and new together",
			[]sse.Event{named("a", "5", "z"), named("a", "1", "x"), on("a", "6"), named("a", "5", "z"), named("a", "4", "y"), named("a", "7", "w")},
			[]uint64{5, 1, 6, 5, 4, 7},
		},
		{"IDs that begin alike", []sse.Event{named("a", "8", "x "), named("a", "9", "X"), named("a", "10", "é")}, []uint64{8, 9, 10}},
		{"all of these", []sse.Event{named("a", "10", "é"), named("a", "9", "X"), named("a", "8", "x ")}, []uint64{10, 9, 8}},
	} {
		for i, p := range t.publish(step.events...) {
			if p != t.at(step.want[i]) {
				t.Fatalf("%s: event %d is at %s, not at %d", step.what, i, p, step.want[i])
			}
			if p == next {
				all = append(all, step.events[i])
				next.Seq++
			}
		}
	}
	t.expect(all)
}

func repeatsAtOnce(t *trial) {
	t.open(Retention{})
	const publishers, ids = 8, 20
	positions := make([][ids]sse.Position, publishers)
	var failed error
	var mu sync.Mutex
	var wg sync.WaitGroup
	for publisher := range publishers {
		wg.Go(func() {
			for n := range ids {
				got, err := t.broker.Publish(t.Context(), []sse.Event{named("a", fmt.Sprint(n), fmt.Sprint(n))})
				if err == nil {
					positions[publisher][n] = got[0]
					continue
				}
				mu.Lock()
				failed = err
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed != nil {
		t.Fatalf("Publish: %v", failed)
	}
	for n := range ids {
		for publisher := range publishers {
			if positions[publisher][n] != positions[0][n] {
				t.Errorf("ID %d is at %s for one publisher and at %s for another", n, positions[0][n], positions[publisher][n])
			}
		}
	}
	t.expect(numbered("a", 0, ids))
}

func repeatWindow(t *trial) {
	t.open(Retention{})
	first := t.publish(named("a", "1", "x"))
	time.Sleep(sse.RepeatWindow / 2)
	t.publish(named("a", "2", "y"))
	if t.config.Promise >= KeepsAfterClose {
		t.reopen(Retention{})
	}
	time.Sleep(sse.RepeatWindow/2 - time.Second)
	if got := t.publish(named("a", "1", "x")); got[0] != first[0] {
		t.Errorf("an ID is forgotten a second before its time: it is at %s, and then at %s", first[0], got[0])
	}
	time.Sleep(sse.RepeatWindow/2 - time.Second) // the repeat did not begin the time anew
	third := t.publish(named("a", "3", "x"))
	if third[0].Seq != 3 {
		t.Errorf("an ID is known for %s; it is at %s again", 3*sse.RepeatWindow/2, third[0])
	}
	if got := t.publish(named("a", "2", "y"), named("a", "3", "x")); got[0].Seq != 2 || got[1].Seq != 3 {
		t.Errorf("IDs that are in their time are at %s, not at 2 and 3", got)
	}
}

// tooLate publishes events of which one comes too late, and holds the error to
// the event, the channels of which it may name one, and where that ended.
func (t *trial) tooLate(index int, channels []string, at sse.Position, events ...sse.Event) {
	t.Helper()
	_, err := t.broker.Publish(t.Context(), events)
	ended, ok := errors.AsType[*sse.EndedError](err)
	if !ok {
		t.Errorf("a publish on a channel that has ended: error is %v, not an EndedError", err)
		return
	}
	if ended.Index != index || ended.At != at || !slices.Contains(channels, ended.Channel) {
		t.Errorf("error is %+v, not that event %d comes too late for one of %q, which ended at %s", *ended, index, channels, at)
	}
}

// hasEnded holds the state to the channels that ended, by their seq.
func (t *trial) hasEnded(want ...sse.Ended) {
	t.Helper()
	got := t.state().Ended
	if !slices.IsSortedFunc(got, func(a, b sse.Ended) int { return int(a.Seq) - int(b.Seq) }) {
		t.Errorf("State: the ended channels are not in the order in which they ended: %v", got)
	}
	for _, e := range want {
		if !slices.Contains(got, e) {
			t.Errorf("State: %q, which ended at %d, is not among the ended: %v", e.Channel, e.Seq, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("State: ended are %v, not %v", got, want)
	}
}

func ends(t *trial) {
	t.open(Retention{})
	after := on("after", "last")
	after.End = sse.EndAfter
	only := sse.Event{Channels: []string{"only"}, End: sse.EndOnly}
	several := sse.Event{Channels: []string{"x", "y", "z"}, Data: "bye", End: sse.EndAfter}
	all := []sse.Event{on("after", "1"), after, on("x", "1"), only, several, on("on", "1")}
	for _, e := range all {
		t.publish(e)
	}
	t.hasEnded(sse.Ended{Channel: "after", Seq: 2}, sse.Ended{Channel: "only", Seq: 4},
		sse.Ended{Channel: "x", Seq: 5}, sse.Ended{Channel: "y", Seq: 5}, sse.Ended{Channel: "z", Seq: 5})

	t.tooLate(0, []string{"after"}, t.at(2), on("after", "no"))
	t.tooLate(0, []string{"after"}, t.at(2), after)
	t.tooLate(0, []string{"only"}, t.at(4), on("only", "no"))
	t.tooLate(1, []string{"y"}, t.at(5), on("on", "no"), sse.Event{Channels: []string{"on", "y"}, Data: "no"})
	t.tooLate(2, []string{"x", "z"}, t.at(5), on("on", "no"), on("new", "no"), sse.Event{Channels: []string{"x", "z"}, End: sse.EndOnly})

	prefix := on("afterwards", "a name that begins with one that ended")
	t.publish(prefix)
	t.expect(append(all, prefix))
}

func endsInArray(t *trial) {
	t.open(Retention{})
	end := sse.Event{Channels: []string{"a", "b"}, Data: "last", End: sse.EndAfter}
	t.tooLate(2, []string{"b"}, sse.Position{}, on("a", "no"), end, on("b", "no"))
	t.tooLate(1, []string{"a", "b"}, sse.Position{}, end, end)
	t.hasEnded()
	all := []sse.Event{on("b", "1"), end, on("c", "1")}
	t.publish(all...)
	t.hasEnded(sse.Ended{Channel: "a", Seq: 2}, sse.Ended{Channel: "b", Seq: 2})
	t.expect(all)
}

func endsRepeated(t *trial) {
	t.open(Retention{})
	all := []sse.Event{
		named("a", "1", "one"),
		{Channels: []string{"a"}, Data: "last", ID: "two", End: sse.EndAfter},
		{Channels: []string{"b"}, ID: "three", End: sse.EndOnly},
	}
	t.publish(all...)
	for i, e := range all {
		if got := t.publish(e); got[0] != t.at(uint64(i+1)) {
			t.Errorf("a repeat on a channel that has ended is at %s, not at %d", got[0], i+1)
		}
	}
	for i, p := range t.publish(all...) {
		if p != t.at(uint64(i+1)) {
			t.Errorf("in an array, a repeat on a channel that has ended is at %s, not at %d", p, i+1)
		}
	}
	// Its end and its repeat in one array, and no more than that.
	end := sse.Event{Channels: []string{"c"}, Data: "last", ID: "four", End: sse.EndAfter}
	if got := t.publish(end, end); got[0] != t.at(4) || got[1] != got[0] {
		t.Errorf("an end and its repeat in one array are at %s", got)
	}
	t.tooLate(1, []string{"c"}, t.at(4), end, on("c", "no"))
	t.expect(append(all, end))
}
