package ssetest

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/caddy-sse/caddy-sse/sse"
)

// page reads one page and holds it to the contract, but for what it may lack.
func (t *trial) page(after sse.Position, channels []string, bytes int) (sse.Page, error) {
	t.Helper()
	before := t.state().Newest
	page, err := t.broker.Read(t.Context(), after, channels, bytes)
	if err != nil {
		return page, err
	}
	if err := checkPage(page, after, channels, bytes, before, t.state().Newest); err != nil {
		t.Fatal(err)
	}
	return page, nil
}

// checkPage holds a page to what was asked for, while the record ended between
// two positions.
func checkPage(page sse.Page, after sse.Position, channels []string, bytes int, before, head sse.Position) error {
	what := fmt.Sprintf("Read(%s, %q, %d)", after, channels, bytes)
	through := page.Through
	switch {
	case through.Epoch != head.Epoch || through.Seq > head.Seq:
		return fmt.Errorf("%s: through %s, which is not in the record; it ends at %s", what, through, head)
	case through.Seq < after.Seq:
		return fmt.Errorf("%s: through %s, before what was asked for", what, through)
	case through.Seq == after.Seq && before.Seq > after.Seq:
		return fmt.Errorf("%s: through %s leads to the same page again; the record ends at %s", what, through, head)
	}
	last, size := after, 0
	for i, e := range page.Entries {
		if e.Position.Epoch != head.Epoch || e.Position.Seq <= last.Seq || e.Position.Seq > through.Seq {
			return fmt.Errorf("%s: %s follows %s on a page through %s", what, e.Position, last, through)
		}
		if !matches(e.Event, channels) {
			return fmt.Errorf("%s: %s is on %q", what, e.Position, e.Event.Channels)
		}
		if last = e.Position; i < len(page.Entries)-1 {
			size += len(e.Event.Data)
		}
	}
	if size/2 > bytes {
		return fmt.Errorf("%s: a page of %d bytes of data without its last entry", what, size)
	}
	return nil
}

// pages reads all that follows a position.
func (t *trial) pages(after sse.Position, channels []string, bytes int) ([]sse.Entry, error) {
	t.Helper()
	var all []sse.Entry
	for {
		page, err := t.page(after, channels, bytes)
		if err != nil {
			return nil, err
		}
		all = append(all, page.Entries...)
		if page.Through == t.state().Newest {
			return all, nil
		}
		after = page.Through
	}
}

// kept returns all that the record keeps. What is given up while it reads makes
// it begin anew.
func (t *trial) kept() []sse.Entry {
	t.Helper()
	for {
		before := t.state()
		all, err := t.pages(sse.Position{}, []string{"*"}, 1<<20)
		if errors.Is(err, sse.ErrGone) && t.state().Oldest != before.Oldest {
			continue
		}
		if err != nil {
			t.Fatalf("Read: %v", err)
		}
		t.isDense(all)
		return all
	}
}

// isDense holds entries of all channels to their positions.
func (t *trial) isDense(entries []sse.Entry) {
	t.Helper()
	for i := 1; i < len(entries); i++ {
		if entries[i].Position.Seq != entries[i-1].Position.Seq+1 {
			t.Fatalf("%s follows %s in the record", entries[i].Position, entries[i-1].Position)
		}
	}
}

func matches(e sse.Event, channels []string) bool {
	return slices.ContainsFunc(e.Channels, func(name string) bool {
		return slices.ContainsFunc(channels, func(c string) bool { return sse.Covers(c, name) })
	})
}

// filter returns the entries behind a seq that are on any of the channels.
func filter(entries []sse.Entry, after uint64, channels []string) []sse.Entry {
	var found []sse.Entry
	for _, e := range entries {
		if e.Position.Seq > after && matches(e.Event, channels) {
			found = append(found, e)
		}
	}
	return found
}

// readFails asks for what is gone, or was never.
func (t *trial) readFails(after sse.Position) {
	t.Helper()
	for _, channels := range [][]string{{"*"}, {"a"}, {"nothing"}} {
		_, err := t.broker.Read(t.Context(), after, channels, 1000)
		t.fails(fmt.Sprintf("Read behind %s of %q", after, channels), err, sse.ErrGone)
		_, err = t.broker.Count(t.Context(), after, channels, 1000)
		t.fails(fmt.Sprintf("Count behind %s of %q", after, channels), err, sse.ErrGone)
	}
}

func readEdges(t *trial) {
	t.open(Retention{})
	for n := range 2 {
		state := t.state()
		for _, after := range []sse.Position{{}, t.at(state.Oldest.Seq)} {
			t.compare(after, []string{"*"}, 10, 100)
			t.compare(after, []string{"a", "nothing"}, 10, 100)
		}
		t.compare(state.Newest, []string{"*"}, 1, 1)
		for seq := range state.Oldest.Seq {
			t.readFails(t.at(seq))
		}
		t.readFails(t.at(state.Newest.Seq + 1))
		t.readFails(t.at(1 << 62))
		t.readFails(sse.Position{Epoch: "another"})
		t.readFails(sse.Position{Epoch: "another", Seq: state.Newest.Seq})
		if n == 0 {
			t.publish(numbered("a", 0, 5)...)
		}
	}
}

// compare holds what is read behind a position, and what is counted, to what
// the record has. Nobody publishes meanwhile; the oldest entries may go.
func (t *trial) compare(after sse.Position, channels []string, bytes, limit int) {
	t.Helper()
	t.compareWith(t.record(), after, channels, bytes, limit)
}

func (t *trial) compareWith(record []sse.Entry, after sse.Position, channels []string, bytes, limit int) {
	t.Helper()
	before := t.state()
	got, err := t.pages(after, channels, bytes)
	count, countErr := t.broker.Count(t.Context(), after, channels, limit)
	oldest := t.state().Oldest
	what := fmt.Sprintf("behind %s of %q by %d bytes", after, channels, bytes)
	if !after.IsZero() && after.Seq < before.Oldest.Seq {
		t.fails("Read "+what, err, sse.ErrGone)
		t.fails("Count "+what, countErr, sse.ErrGone)
		return
	}
	if oldest != before.Oldest {
		return // it went while we asked; another time it does not
	}
	if err != nil || countErr != nil {
		t.Fatalf("%s: Read: %v, Count: %v; the record is kept behind %s", what, err, countErr, oldest)
	}
	want := filter(record, max(after.Seq, oldest.Seq), channels)
	t.equal("what is read "+what+" and the record", got, want)
	if want := min(len(want), limit); count != want {
		t.Fatalf("%s: Count up to %d is %d, not %d", what, limit, count, want)
	}
}

var pageSizes = []int{0, 1, 10, 100, 4000, 1 << 20, math.MaxInt}

func readPages(t *trial) {
	t.open(Retention{})
	var all []sse.Event
	for n := range 60 {
		e := on([]string{"a", "b", "c"}[n%3], fmt.Sprintf("%*d", n*n%701, n))
		if n%7 == 0 {
			e.Data = ""
		}
		all = append(all, e)
	}
	all = append(all, colourful()...)
	for n := 0; n < len(all); n += 10 {
		t.publish(all[n:min(n+10, len(all))]...)
	}
	record := t.expect(all)
	for _, bytes := range pageSizes {
		for _, channels := range [][]string{{"*"}, {"a"}, {"b", "large"}, {"nothing"}} {
			t.compareWith(record, sse.Position{}, channels, bytes, 1000)
			t.compareWith(record, t.state().Oldest, channels, bytes, 10)
		}
	}
}

func readChannels(t *trial) {
	t.open(Retention{})
	for _, channels := range [][]string{
		{"a"},
		{"a", "ab"},
		{"ab", "abc", "a"},
		{"b/1"},
		{"b/2"},
		{"b"},
		{"ü"},
		{"üx", "\u00fd"},
		{"A"},
		{"b0", "c"},
		{"\U0010ffff"},
		{"a", "b", "c", "ü"},
		{"a:b", "a.b", "a-b", "a_b", "a~b", "a@b", "a=b"},
	} {
		t.publish(sse.Event{Channels: channels, Data: fmt.Sprint(channels)})
	}
	record := t.record()
	for _, channels := range [][]string{
		{"a"},
		{"ab"},
		{"nothing"},
		{"a*"},
		{"ab*"},
		{"abc*"},
		{"abcd*"},
		{"b/*"},
		{"b*"},
		{"ü"},
		{"ü*"},
		{"*"},
		{"A*"},
		{"\U0010ffff*"},
		{"a", "ab"},
		{"ab", "a"},
		{"a*", "ab"},
		{"a", "a*", "ab*", "abc", "*"},
		{"b", "b/*", "c"},
		{"nothing*", "c", "nothing"},
		{"a:*", "a=b", "a-b"},
		{"a", "a"},
		{"a*", "a*"},
	} {
		t.compareWith(record, sse.Position{}, channels, 1<<20, 1000)
		t.compareWith(record, t.at(5), channels, 1, 2)
	}
}

func ownSlices(t *trial) {
	t.open(Retention{})
	end := on("b", "last")
	end.End = sse.EndAfter
	all := append(numbered("a", 0, 3), end)
	t.publish(all...)
	page, err := t.broker.Read(t.Context(), sse.Position{}, []string{"*"}, 1000)
	if err != nil {
		t.Fatalf("Read: %v", err)
	}
	clear(page.Entries)
	clear(t.state().Ended)
	t.hasEnded(sse.Ended{Channel: "b", Seq: 4})
	t.expect(all)
}
