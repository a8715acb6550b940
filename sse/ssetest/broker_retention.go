package ssetest

import (
	"fmt"
	"strings"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// fill publishes 400 events on three channels and returns the record.
func (t *trial) fill() []sse.Entry {
	t.Helper()
	for n := range 20 {
		t.publish(numbered([]string{"a", "b", "c"}[n%3], n*20, 20)...)
	}
	return t.record()
}

// keeping returns how many entries are kept.
func (t *trial) keeping() int {
	t.Helper()
	state := t.state()
	return int(state.Newest.Seq - state.Oldest.Seq)
}

// shrinks waits until at most so many entries are kept. It publishes meanwhile,
// as a broker may trim as it publishes, and returns what the record had and was
// given.
func (t *trial) shrinks(record []sse.Entry, least, most int) []sse.Entry {
	t.Helper()
	t.wait(fmt.Sprintf("at most %d entries are kept", most), func() bool {
		t.publish(on("a", "more"))
		n := t.keeping()
		if n < least {
			t.Fatalf("%d entries are kept, not the newest %d", n, least)
		}
		return n <= most
	})
	return t.grown(record)
}

// grown returns the record with what the live tail was handed since.
func (t *trial) grown(record []sse.Entry) []sse.Entry {
	t.Helper()
	t.live.until(t.state().Newest.Seq)
	for _, e := range t.live.entries() {
		if e.Position.Seq > uint64(len(record)) {
			record = append(record, e)
		}
	}
	t.isDense(record)
	return record
}

// compareAll compares at many positions, kept and gone.
func (t *trial) compareAll(record []sse.Entry) {
	t.Helper()
	state := t.state()
	oldest := state.Oldest.Seq
	for _, channels := range [][]string{{"*"}, {"b"}, {"c", "nothing"}} {
		t.compareWith(record, sse.Position{}, channels, 100, len(record))
	}
	for _, seq := range []uint64{oldest, oldest + 1, (oldest + state.Newest.Seq) / 2, state.Newest.Seq} {
		t.compareWith(record, t.at(seq), []string{"*"}, 10, 7)
		t.compareWith(record, t.at(seq), []string{"a", "c"}, 1000, 1000)
		t.tailWith(record, t.at(seq))
	}
	for _, seq := range []uint64{0, oldest / 2, oldest - 1} {
		if seq < oldest {
			t.readFails(t.at(seq))
			t.tailFails(t.at(seq))
		}
	}
}

func trimmed(t *trial) {
	t.open(Retention{})
	record := t.fill()
	if n := t.keeping(); n != len(record) {
		t.Fatalf("%d of %d entries are kept where nothing limits them", n, len(record))
	}
	t.retain(Retention{Entries: 1000})
	t.compareWith(record, t.at(0), []string{"*"}, 1<<20, 1000)
	t.retain(Retention{Entries: 40})
	record = t.shrinks(record, 40, len(record)/2)
	t.compareAll(record)

	oldest := t.state().Oldest
	t.retain(Retention{})
	t.publish(numbered("b", 0, 50)...)
	record = t.grown(record)
	if got := t.state().Oldest; got.Seq < oldest.Seq {
		t.Errorf("what is gone comes back: the oldest position was %s and is %s", oldest, got)
	}
	t.compareAll(record)
}

func trimmedBytes(t *trial) {
	t.open(Retention{})
	for n := range 64 {
		e := on([]string{"a", "b", "c"}[n%3], fmt.Sprint(n))
		e.Data += strings.Repeat(".", 4<<10)
		t.publish(e, e, e, e)
	}
	record := t.record()
	t.retain(Retention{Bytes: 200 << 10}) // of a mebibyte
	record = t.shrinks(record, 1, len(record)/2)
	t.compareAll(record)
}

func trimmedByAge(t *trial) {
	const age = 10 * time.Minute
	t.open(Retention{Age: age})
	t.publish(numbered("old", 0, 5)...)
	time.Sleep(age * 8 / 10)
	t.publish(numbered("young", 5, 5)...)
	record := t.grown(nil)
	time.Sleep(age / 10)
	if n := t.keeping(); n != 10 {
		t.Errorf("%d entries are kept, not 10 that are younger than the limit", n)
	}
	time.Sleep(age * 8 / 10)
	t.wait("entries of 1.7 times the age are given up", func() bool { return t.keeping() <= 5 })
	if n := t.keeping(); n != 5 {
		t.Errorf("%d entries are kept, not 5 of 0.9 times the age", n)
	}
	t.compareAll(record)
	time.Sleep(age)
	t.wait("entries of 1.9 times the age are given up", func() bool { return t.keeping() == 0 })
	if got := t.state().Newest; got.Seq != 10 {
		t.Errorf("the head of a record that lost its last entry is %s", got)
	}
}

// loseAll waits until a record has no entries left, and lifts the limit again.
func (t *trial) loseAll() {
	t.Helper()
	t.retain(Retention{Age: time.Nanosecond})
	t.wait("all entries are given up that are older than a nanosecond", func() bool { return t.keeping() == 0 })
	t.retain(Retention{})
}

func trimmedEmpty(t *trial) {
	t.open(Retention{})
	record := t.fill()
	for n := range 3 {
		head := t.state().Newest
		t.loseAll()
		if n > 0 && t.config.Promise >= KeepsAfterClose {
			t.reopen(Retention{})
		}
		if state := t.state(); state.Newest != head || state.Oldest != head {
			t.Fatalf("the head was %s; all entries are gone, and the state is %+v", head, state)
		}
		t.compareWith(record, sse.Position{}, []string{"*"}, 100, 100)
		t.compareWith(record, head, []string{"a"}, 100, 100)
		t.readFails(t.at(head.Seq - 1))
		t.tailFails(t.at(head.Seq - 1))
		t.tailWith(record, head)
		if p := t.publish(on("a", "goes on")); p[0] != t.at(head.Seq+1) {
			t.Fatalf("the first entry behind %s is at %s", head, p[0])
		}
		record = t.grown(record)
		t.compareAll(record)
	}
}

func trimmedRepeats(t *trial) {
	t.open(Retention{})
	want := t.publish(named("a", "first", "x"), named("b", "second", "y"))
	record := t.fill()
	t.retain(Retention{Entries: 20})
	t.shrinks(record, 20, len(record)/2)
	for n := range 2 {
		got := t.publish(named("b", "second", "y"), named("a", "first", "x"))
		if got[0] != want[1] || got[1] != want[0] {
			t.Errorf("IDs whose entries at %v are gone are at %v, opened %d times", want, got, n+1)
		}
		if t.config.Promise >= KeepsAfterClose {
			t.reopen(Retention{Entries: 20})
		}
	}
}

func trimmedEnds(t *trial) {
	t.open(Retention{})
	t.publish(numbered("x", 0, 10)...)
	end := on("x", "last")
	end.End = sse.EndAfter
	at := t.publish(end)[0]
	isKnown := func() bool {
		for _, e := range t.state().Ended {
			if e.Channel == "x" {
				return true
			}
		}
		return false
	}
	t.retain(Retention{Entries: 5})
	t.wait("the channel is forgotten whose end is gone", func() bool {
		if known := isKnown(); t.state().Oldest.Seq >= at.Seq {
			return !isKnown()
		} else if !known && t.state().Oldest.Seq < at.Seq {
			t.Fatalf("a channel is forgotten whose end, at %s, is kept: %+v", at, t.state())
		}
		t.tooLateWhile(at, on("x", "no"))
		t.publish(numbered("a", 0, 10)...)
		return false
	})

	again := t.publish(on("x", "anew"), end)
	t.tooLate(0, []string{"x"}, again[1], on("x", "no"))
	t.publish(numbered("a", 0, 3)...)
	t.tooLate(0, []string{"x"}, again[1], on("x", "no"))
	if t.config.Promise >= KeepsAfterClose {
		t.reopen(Retention{Entries: 5})
		t.tooLate(0, []string{"x"}, again[1], on("x", "no"))
	}
}

// tooLateWhile publishes what comes too late while an entry is kept.
func (t *trial) tooLateWhile(at sse.Position, e sse.Event) {
	t.Helper()
	_, err := t.broker.Publish(t.Context(), []sse.Event{e})
	if err == nil && t.state().Oldest.Seq < at.Seq {
		t.Fatalf("a channel takes an event though its end, at %s, is kept", at)
	}
}
