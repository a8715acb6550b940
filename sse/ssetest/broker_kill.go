package ssetest

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A witness knows what the killed processes acknowledged, and what the record
// had when it was last looked at.
type witness struct {
	*trial
	r     *rand.Rand
	place string
	keep  Retention
	life  int // how many processes have been killed, on this record
	count int // how many publishes they acknowledged

	epoch  string
	record []sse.Entry
	acked  map[batchName][]sse.Position
	last   map[batchName]int // by a name with n zero: the last n that the publisher had acknowledged, or -1
}

func killed(t *trial) {
	r := t.random()
	kills := lasting(12, 240)
	for records := 0; kills > 0; records++ {
		w := &witness{
			trial: t, r: r, place: t.TempDir(),
			acked: make(map[batchName][]sse.Position), last: make(map[batchName]int),
		}
		if records%3 == 2 {
			w.keep = Retention{Entries: 50}
		}
		kills = w.watch(kills, 1+r.IntN(8))
	}
}

// watch kills that many processes, and looks at the record after one or several
// of them. It returns how many kills are left.
func (w *witness) watch(kills, here int) int {
	w.Helper()
	defer func() { w.Logf("%d kills, limit %d: %d publishes were acknowledged", w.life, w.keep.Entries, w.count) }()
	for here = min(kills, here); here > 0; {
		row := min(here, 1+w.r.IntN(3))
		for range row {
			w.life++
			w.kill()
		}
		kills, here = kills-row, here-row
		w.look()
		if w.Failed() {
			w.FailNow()
		}
	}
	return kills
}

// look opens the record, holds it to what is known of it, and repeats what the
// processes published last.
func (w *witness) look() {
	w.Helper()
	broker, err := w.config.Open(w.place, w.keep)
	if errors.Is(err, errors.ErrUnsupported) && w.keep != (Retention{}) {
		w.keep = Retention{} // as the processes did
		broker, err = w.config.Open(w.place, w.keep)
	}
	if err != nil {
		w.Fatalf("Open after a kill: %v", err)
	}
	w.broker = broker
	defer w.close()
	state := w.state()
	w.sameEpoch(state.Newest.Epoch)
	w.examine(w.kept())
	w.repeat()
	record := w.kept()
	w.examine(record)
	w.record = record
	for name := range w.acked {
		if name.life < w.life-3 {
			delete(w.acked, name) // it has been looked at
		}
	}
}

// sameEpoch holds the epoch of an opened record to what it was.
func (w *witness) sameEpoch(epoch string) {
	w.Helper()
	if w.epoch != "" && epoch != w.epoch {
		w.Errorf("the epoch was %s and is %s after a kill", w.epoch, epoch)
	}
	w.epoch = epoch
}

// examine holds the record to what was acknowledged, and to what was there. Its
// oldest entries may have gone since it was read.
func (w *witness) examine(record []sse.Entry) {
	w.Helper()
	state := w.state()
	oldest := state.Oldest.Seq
	if kept := state.Newest.Seq - oldest; kept < min(uint64(w.keep.Entries), state.Newest.Seq) || (w.keep.Entries == 0 && oldest > 0) {
		w.Fatalf("%d entries are kept, with a limit of %d: %+v", kept, w.keep.Entries, state)
	}
	at := make(map[uint64]sse.Entry, len(record))
	for _, e := range record {
		at[e.Position.Seq] = e
	}
	for seq := oldest + 1; seq <= state.Newest.Seq; seq++ {
		if _, found := at[seq]; !found {
			w.Fatalf("no entry is at %d; the state is %+v", seq, state)
		}
	}
	for _, e := range w.record {
		if got, found := at[e.Position.Seq]; e.Position.Seq > oldest && (!found || !sameEntry(got, e)) {
			w.Fatalf("what is at %s changed from\n%sto\n%s", e.Position, list([]sse.Entry{e}), list([]sse.Entry{got}))
		}
	}
	for name, positions := range w.acked {
		for i, want := range name.batch() {
			if got, found := at[positions[i].Seq]; positions[i].Seq > oldest && (!found || !sameEvent(got.Event, want)) {
				w.Fatalf("%s was acknowledged at %s, where is\n%s", want.ID, positions[i], list([]sse.Entry{got}))
			}
		}
	}
	w.whole(record)
	w.endsKnown(record, state)
}

// whole holds each array in the record to being whole, once, and as it was
// published. The beginning of the first may have been given up.
func (w *witness) whole(record []sse.Entry) {
	w.Helper()
	seen := make(map[batchName]bool)
	for limited := w.keep.Entries > 0; len(record) > 0; limited = false {
		first := record[0]
		name, index, err := parseBatch(first.Event.Data)
		if err != nil {
			w.Fatalf("nobody published %.80q at %s: %v", first.Event.Data, first.Position, err)
		}
		want := name.batch()
		switch {
		case seen[name]:
			w.Fatalf("%v is in the record twice, the second time at %s", name, first.Position)
		case index > 0 && !limited:
			w.Fatalf("%v is in the record from its event %d on, at %s", name, index, first.Position)
		case len(record) < len(want)-index:
			w.Fatalf("%v ends the record with %d of %d events", name, len(record)+index, len(want))
		}
		seen[name] = true
		for i, e := range want[index:] {
			if !sameEvent(record[i].Event, e) {
				w.Fatalf("%v is not whole: at %s is\n%snot\n%+v", name, record[i].Position, list(record[i:i+1]), e)
			}
		}
		record = record[len(want)-index:]
	}
}

// endsKnown holds the state to the ends in the record.
func (w *witness) endsKnown(record []sse.Entry, state sse.State) {
	w.Helper()
	ended := make(map[sse.Ended]bool)
	for _, e := range state.Ended {
		ended[e] = true
	}
	for _, e := range record {
		if e.Event.End == sse.EndNone || e.Position.Seq <= state.Oldest.Seq {
			continue
		}
		name := e.Event.Channels[0]
		if !ended[sse.Ended{Channel: name, Seq: e.Position.Seq}] {
			w.Fatalf("channel %q ended at %s and is not among the ended", name, e.Position)
		}
	}
	if n := len(record); n > 0 && record[n-1].Event.End != sse.EndNone {
		w.tooLate(0, record[n-1].Event.Channels, record[n-1].Position, on(record[n-1].Event.Channels[0], "no"))
	}
}

// repeat publishes what each publisher acknowledged last, and what came after
// that: it may be in the record or not, and must be there once then.
func (w *witness) repeat() {
	w.Helper()
	there := make(map[batchName][]sse.Position)
	for _, e := range w.kept() {
		if name, _, err := parseBatch(e.Event.Data); err == nil {
			there[name] = append(there[name], e.Position)
		}
	}
	for _, publisher := range slices.SortedFunc(maps.Keys(w.last), batchName.compare) {
		n := w.last[publisher]
		for _, n := range []int{max(n, 0), n + 1} {
			name := publisher
			name.n = n
			head := w.state().Newest.Seq
			positions, err := w.broker.Publish(w.Context(), name.batch())
			if err != nil || len(positions) != len(name.batch()) {
				w.Fatalf("%v cannot be repeated: %v, %v", name, positions, err)
			}
			want := w.acked[name]
			if want == nil {
				want = there[name]
			}
			if want == nil {
				want = w.fresh(positions, head)
			}
			if !slices.Equal(positions[len(positions)-len(want):], want) {
				w.Fatalf("%v is at %v when it is repeated, not at %v", name, positions, want)
			}
			w.acked[name] = positions
		}
	}
	clear(w.last)
}

// fresh returns the positions that an array should have got which is not in the
// record: behind the head, unless it was kept and has been given up since.
func (w *witness) fresh(got []sse.Position, head uint64) []sse.Position {
	w.Helper()
	first := head + 1
	if got[0].Seq <= w.state().Oldest.Seq {
		first = got[0].Seq
	}
	want := make([]sse.Position, len(got))
	for i := range want {
		want[i] = sse.Position{Epoch: w.epoch, Seq: first + uint64(i)}
	}
	return want
}

// A batchName tells an array of one publisher in one process. The array follows
// from the name, so that both processes know it.
type batchName struct {
	life, publisher, n int
}

func (b batchName) String() string {
	return fmt.Sprintf("array %d of publisher %d in process %d", b.n, b.publisher, b.life)
}

func (b batchName) compare(c batchName) int {
	return slices.Compare([]int{b.life, b.publisher, b.n}, []int{c.life, c.publisher, c.n})
}

func (b batchName) batch() []sse.Event {
	r := rand.New(rand.NewPCG(uint64(b.life), uint64(b.publisher)<<32|uint64(b.n)))
	events := make([]sse.Event, 1+r.IntN(5))
	for i := range events {
		id := fmt.Sprintf("%d/%d/%d/%d", b.life, b.publisher, b.n, i)
		size := r.IntN(100)
		if r.IntN(20) == 0 {
			size = r.IntN(20_000)
		}
		text := make([]byte, size)
		for i := range text {
			text[i] = byte('a' + r.IntN(26))
		}
		events[i] = sse.Event{
			Channels: []string{fmt.Sprintf("p%d", b.publisher), fmt.Sprintf("n%d", b.n%7)},
			Name:     []string{"", "word"}[r.IntN(2)], Data: id + " " + string(text), ID: id,
		}
		if r.IntN(10) == 0 {
			events[i].Channels = []string{"ends/" + id}
			events[i].End = sse.EndAfter
		}
	}
	return events
}

// parseBatch returns the array that an event is of, and its index there.
func parseBatch(data string) (b batchName, index int, err error) {
	_, err = fmt.Sscanf(data, "%d/%d/%d/%d ", &b.life, &b.publisher, &b.n, &index)
	return b, index, err
}
