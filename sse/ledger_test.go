package sse_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

var noon = time.Date(2030, 1, 1, 12, 0, 0, 0, time.UTC)

func newLedger() *sse.Ledger {
	return sse.NewLedger(sse.Position{Epoch: "test"}, time.Unix(0, 0))
}

// draft drafts events and returns what becomes of them: the seq of each, and
// those of the entries that are to be kept.
func draft(t *testing.T, l *sse.Ledger, at time.Time, events ...sse.Event) string {
	t.Helper()
	entries, positions, err := l.Draft(events, at)
	if err != nil {
		if ended, ok := errors.AsType[*sse.EndedError](err); ok {
			return fmt.Sprintf("%s ended at %d, index %d", ended.Channel, ended.At.Seq, ended.Index)
		}
		return err.Error()
	}
	var seqs, kept []uint64
	for _, p := range positions {
		seqs = append(seqs, p.Seq)
	}
	for _, e := range entries {
		kept = append(kept, e.Position.Seq)
	}
	return fmt.Sprint(seqs, kept)
}

func event(id string, channels ...string) sse.Event { return sse.Event{ID: id, Channels: channels} }

func last(channels ...string) sse.Event { return sse.Event{Channels: channels, End: sse.EndAfter} }

// TestLedger holds what becomes of publishes: dense positions, repeats that are
// answered and not kept, channels that end, all or none.
func TestLedger(t *testing.T) {
	l := newLedger()
	for _, step := range []struct {
		name   string
		events []sse.Event
		want   string
	}{
		{"one", []sse.Event{event("", "a")}, "[1] [1]"},
		{"none", nil, "[] []"},
		{"ids", []sse.Event{event("x", "a"), event("y", "a")}, "[2 3] [2 3]"},
		{"a repeat", []sse.Event{event("x", "a")}, "[2] []"},
		{"repeats among others", []sse.Event{event("", "a"), event("y", "b"), event("z", "a")}, "[4 3 5] [4 5]"},
		{"twice in one", []sse.Event{event("w", "a"), event("w", "a"), event("", "a")}, "[6 6 7] [6 7]"},
		{"an end", []sse.Event{event("", "b"), last("b", "c")}, "[8 9] [8 9]"},
		{"behind an end", []sse.Event{event("", "a"), event("v", "a", "c")}, "c ended at 9, index 1"},
		{"an end in the same", []sse.Event{last("d"), event("", "d")}, "d ended at 0, index 1"},
		{"nothing of these was kept", []sse.Event{event("v", "a"), event("", "d")}, "[10 11] [10 11]"},
		{"a repeat is no event behind an end", []sse.Event{event("y", "b")}, "[3] []"},
	} {
		if got := draft(t, l, noon, step.events...); got != step.want {
			t.Errorf("%s: %s, want %s", step.name, got, step.want)
		}
		l.Commit()
	}
	if got := l.Ended(); !slices.Equal(got, []sse.Ended{{Channel: "b", Seq: 9}, {Channel: "c", Seq: 9}}) {
		t.Errorf("ended: %v", got)
	}
}

// TestLedgerRollback holds that a commit that failed leaves nothing behind,
// however many publishes it had, and what was committed before stays.
func TestLedgerRollback(t *testing.T) {
	l := newLedger()
	draft(t, l, noon, event("kept", "a"), last("over"))
	l.Commit()
	draft(t, l, noon, event("lost", "a"))
	draft(t, l, noon, event("lost too", "b"), last("b"))
	if got := l.Ended(); len(got) != 1 {
		t.Errorf("before the commit these have ended: %v", got)
	}
	if head := l.Head().Seq; head != 2 {
		t.Errorf("before the commit the head is %d", head)
	}
	l.Rollback()
	want := "[3 1 4] [3 4]"
	if got := draft(t, l, noon, event("lost", "b"), event("kept", "a"), event("lost too", "b")); got != want {
		t.Errorf("afterwards %s, want %s", got, want)
	}
	if got, want := draft(t, l, noon, event("", "over")), "over ended at 2, index 0"; got != want {
		t.Errorf("afterwards %s, want %s", got, want)
	}
}

// TestLedgerForgetsIDs holds that an id is known for as long as the window is,
// by a clock that may be set back, and not longer.
func TestLedgerForgetsIDs(t *testing.T) {
	l := newLedger()
	draft(t, l, noon, event("x", "a"))
	l.Commit()
	almost := noon.Add(sse.RepeatWindow - time.Second)
	if got, want := draft(t, l, almost, event("x", "a")), "[1] []"; got != want {
		t.Errorf("within the window: %s, want %s", got, want)
	}
	if got, want := draft(t, l, noon.Add(-time.Hour), event("x", "a")), "[1] []"; got != want {
		t.Errorf("with the clock set back: %s, want %s", got, want)
	}
	l.Commit()
	if got, want := draft(t, l, noon.Add(sse.RepeatWindow+time.Second), event("x", "a")), "[2] [2]"; got != want {
		t.Errorf("behind the window: %s, want %s", got, want)
	}
}

// TestLedgerRollbackRemembers: where ids are remembered from was told by what was
// drafted. When the draft was taken back, its seqs were given to events with ids,
// which a broker then took for forgotten.
func TestLedgerRollbackRemembers(t *testing.T) {
	l := newLedger()
	draft(t, l, noon, event("", "a"), event("", "a"))
	from := l.RemembersFrom(noon)
	l.Rollback()
	draft(t, l, noon, event("x", "a"))
	l.Commit()
	if from > l.RemembersFrom(noon) {
		t.Errorf("remembered from %d during the draft, from %d afterwards", from, l.RemembersFrom(noon))
	}
}

// TestLedgerTime holds that the times of entries do not step back.
func TestLedgerTime(t *testing.T) {
	l := newLedger()
	for _, at := range []time.Time{noon, noon.Add(-time.Minute), noon.Add(time.Second)} {
		entries, _, err := l.Draft([]sse.Event{event("", "a")}, at)
		if err != nil {
			t.Fatal(err)
		}
		if got := entries[0].Time; got.Before(noon) {
			t.Errorf("at %s the entry has the time %s", at, got)
		}
		l.Commit()
	}
}

// TestLedgerRestore holds that a ledger that is made from a record knows what
// the former one did, and that a channel begins anew when the record has given
// up its end.
func TestLedgerRestore(t *testing.T) {
	l := sse.NewLedger(sse.Position{Epoch: "test", Seq: 7}, noon)
	end := sse.Entry{Position: sse.Position{Epoch: "test", Seq: 5}, Event: last("a", "b")}
	l.RestoreEnds(&end)
	l.Restore(sse.Repeat{Key: sse.KeyOf("x"), Seq: 6, Time: noon})
	if got, want := draft(t, l, noon, event("x", "c"), event("", "c")), "[6 8] [8]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	l.Commit()
	if got, want := draft(t, l, noon, event("", "b")), "b ended at 5, index 0"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	l.Forget(&end)
	if got, want := draft(t, l, noon, event("", "b")), "[9] [9]"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}
