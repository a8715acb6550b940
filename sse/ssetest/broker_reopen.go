package ssetest

import (
	"fmt"

	"github.com/caddy-sse/caddy-sse/sse"
)

func reopened(t *trial) {
	t.open(Retention{})
	all := append(colourful(), numbered("a", 0, 10)...)
	all = append(all, named("a", "one", "1"), named("b", "two", "2"))
	t.publish(all[:7]...)
	t.publish(all[7:]...)
	record := t.expect(all)
	for range 2 {
		state := t.state()
		for n := range 2 { // once after entries were added, once after nothing was
			t.reopen(Retention{})
			if got := t.state(); got.Oldest != state.Oldest || got.Newest != state.Newest {
				t.Fatalf("the state was %+v, and is %+v when it is opened again for the %d. time", state, got, n+1)
			}
			t.hasEnded(state.Ended...)
			t.equal("the record when it is opened again and before", t.kept(), record)
			for seq := range uint64(len(record)) {
				t.tailWith(record, t.at(seq))
			}
			t.compareAll(record)
		}
		for i, e := range all {
			if e.ID == "" {
				continue
			}
			if got := t.publish(e); got[0] != t.at(uint64(i+1)) {
				t.Errorf("the ID of %d is at %s when the record is opened again", i+1, got[0])
			}
		}
		t.tooLate(0, []string{"out"}, t.at(10), on("out", "no"))
		t.tooLate(1, []string{"silent"}, t.at(11), on("a", "no"), on("silent", "no"))
		more := append(numbered("a", 10, 3), named("b", "three", fmt.Sprint("3", len(all))))
		t.publish(more...)
		all = append(all, more...)
		record = t.expect(all)
		if last := record[len(record)-5:]; last[1].Time.Before(last[0].Time) {
			t.Errorf("the time of %s is before that of the entry before it", last[1].Position)
		}
	}
}

func reopenedEmpty(t *trial) {
	t.open(Retention{})
	want := t.state()
	t.reopen(Retention{})
	if got := t.state(); got.Oldest != want.Oldest || got.Newest != want.Newest {
		t.Errorf("the state was %+v and is %+v", want, got)
	}
	t.publish(on("a", "1"))
	t.expect([]sse.Event{on("a", "1")})
}

func reopenedTrimmed(t *trial) {
	t.open(Retention{})
	record := t.fill()
	t.reopen(Retention{Entries: 100})
	record = t.shrinks(record, 100, len(record)*3/4)
	for _, keep := range []Retention{{Entries: 100}, {}, {Entries: 20}} {
		before := t.state()
		t.reopen(keep)
		after := t.state()
		if after.Newest != before.Newest || after.Oldest.Seq < before.Oldest.Seq || after.Oldest.Epoch != before.Oldest.Epoch {
			t.Errorf("the state was %+v, and is %+v when it is opened again", before, after)
		}
		if most := len(record) / 4; keep.Entries == 20 {
			record = t.shrinks(record, 20, most)
		}
		t.compareAll(record)
		t.publish(on("b", "goes on"))
		record = t.grown(record)
	}
}
