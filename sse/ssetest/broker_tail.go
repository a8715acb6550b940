package ssetest

import (
	"context"
	"fmt"
	"sync"

	"github.com/caddy-sse/caddy-sse/sse"
)

func tailAnywhere(t *trial) {
	t.open(Retention{})
	empty := t.follow(t.at(0))
	if got := empty.kept(); len(got) > 0 {
		t.Errorf("a tail of an empty record was handed\n%s", list(got))
	}
	var all []sse.Event
	for n := range 4 {
		events := numbered("a", len(all), n+1)
		t.publish(events...)
		all = append(all, events...)
	}
	record := t.expect(all)
	state := t.state()
	var tails []*follower
	for seq := state.Oldest.Seq; seq <= state.Newest.Seq; seq++ {
		f := t.follow(t.at(seq))
		t.equal(fmt.Sprintf("what a tail from %d is handed before the sign, and what is kept,", seq), f.kept(), record[seq:])
		tails = append(tails, f)
	}
	t.publish(on("b", "live"))
	t.publish(on("a", "live"), on("c", "live"))
	record = t.record()
	for i, f := range append(tails, empty) {
		f.until(t.state().Newest.Seq)
		from := state.Oldest.Seq + uint64(i)
		if f == empty {
			from = 0
		}
		t.equal(fmt.Sprintf("what a tail from %d is handed, and the record,", from), f.entries(), record[from:])
	}
}

func tailGone(t *trial) {
	t.open(Retention{})
	t.publish(numbered("a", 0, 5)...)
	state := t.state()
	for seq := range state.Newest.Seq + 3 {
		kept := seq >= state.Oldest.Seq && seq <= state.Newest.Seq
		if !kept {
			t.tailFails(t.at(seq))
		}
	}
	t.tailFails(t.at(1 << 62))
	for _, seq := range []uint64{0, 3, 5} {
		t.tailFails(sse.Position{Epoch: "another", Seq: seq})
	}
}

// tailFails tails from a position that is gone.
func (t *trial) tailFails(after sse.Position) {
	t.Helper()
	f := t.attempt(after)
	if isClosed(f.signed) {
		t.Errorf("Tail from %s is attached; the record is %+v", after, t.state())
	} else {
		t.fails(fmt.Sprintf("Tail from %s", after), f.err, sse.ErrGone)
	}
	if got := f.entries(); len(got) > 0 {
		t.Errorf("Tail from %s delivered\n%s", after, list(got))
	}
}

// attempt tails from a position that may be gone until it is attached.
func (t *trial) attempt(after sse.Position) *follower {
	t.Helper()
	f := t.tail(after)
	t.wait("Tail is attached or returns", func() bool { return isClosed(f.signed) || isClosed(f.done) })
	f.stop()
	return f
}

// tailWith holds what a tail is handed to what the record has. Nobody publishes
// meanwhile; the oldest entries may go.
func (t *trial) tailWith(record []sse.Entry, after sse.Position) {
	t.Helper()
	gone := after.Seq < t.state().Oldest.Seq
	f := t.attempt(after)
	switch {
	case gone:
		t.fails(fmt.Sprintf("Tail from %s, which is gone", after), f.err, sse.ErrGone)
	case isClosed(f.signed):
		t.equal(fmt.Sprintf("what a tail from %s is handed and the record", after), f.kept(), filter(record, after.Seq, []string{"*"}))
	case after.Seq >= t.state().Oldest.Seq:
		t.Errorf("Tail from %s, which is kept: %v", after, f.err)
	}
}

func tailLive(t *trial) {
	t.open(Retention{})
	start := t.state().Newest
	tails := []*follower{t.follow(start), t.follow(start)}
	broker := t.broker
	var late []error
	var mu sync.Mutex
	complain := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		late = append(late, fmt.Errorf(format, args...))
	}
	joinedAll := make(chan struct{})
	var wg sync.WaitGroup
	for publisher := range 4 {
		wg.Go(func() {
			for n := 0; n < 30 || (n < 3000 && !isClosed(joinedAll)); n++ {
				positions, err := broker.Publish(t.Context(), numbered(fmt.Sprint(publisher), n*3, n%3+1))
				if err != nil {
					complain("Publish: %w", err)
					return
				}
				last := positions[len(positions)-1]
				for _, f := range tails {
					if got := f.position(); !t.config.Remote && got.Seq < last.Seq {
						complain("Publish of %s has returned, and a tail is at %s", last, got)
					}
				}
			}
		})
	}
	var joined []*follower
	if t.config.Promise >= KeepsUntilClose {
		for n := range 8 { // what is kept and what is live meet at many places
			tails[0].until(uint64(n+1) * 15)
			joined = append(joined, t.follow(start))
		}
	}
	close(joinedAll)
	wg.Wait()
	for _, err := range late {
		t.Error(err)
	}
	record := t.record()
	for _, f := range append(joined, tails...) {
		f.until(t.state().Newest.Seq)
		t.equal("what a tail was handed, and the record,", f.entries(), record)
	}
}

func tailCancelled(t *trial) {
	t.open(Retention{})
	for n := range 10 {
		f := t.follow(t.state().Newest)
		stop := t.busy()
		f.until(f.position().Seq + uint64(n))
		t.fails("Tail whose context is done", f.stop(), context.Canceled)
		t.publish(on("a", "after the tail"))
		stop()
	}
	t.fails("Tail whose context is done", t.tail(t.state().Newest).stop(), context.Canceled)
	t.record()
}

func tailClosed(t *trial) {
	t.open(Retention{})
	var tails []*follower
	for range 4 {
		tails = append(tails, t.follow(t.state().Newest))
	}
	broker, stop := t.broker, t.busy()
	tails[0].until(20)
	var closers sync.WaitGroup
	for range 3 {
		closers.Go(func() {
			if err := broker.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
			for _, f := range tails {
				f.over("Close")
			}
		})
	}
	closers.Wait()
	for _, f := range tails {
		f.wait()
		t.fails("Tail of a broker that is closed meanwhile", f.err, sse.ErrClosed)
	}
	stop()
}

// busy publishes until the function that it returns is called, or it fails.
func (t *trial) busy() (stop func()) {
	broker := t.broker
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for err := error(nil); err == nil && !isClosed(done); {
				_, err = broker.Publish(t.Context(), numbered("a", 0, 2))
			}
		})
	}
	return func() {
		close(done)
		wg.Wait()
	}
}
