package ssetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// defaultPatience is how long a case waits for what should come, and fails.
const defaultPatience = 20 * time.Second

// A trial is one case on a record of its own. Its methods fail the case.
type trial struct {
	testing.TB
	config   BrokerConfig
	test     string // the name of the test that called RunBroker
	place    string
	patience time.Duration

	broker sse.Broker // nil while the record is not open
	live   *follower  // tails the record since it was opened

	mu        sync.Mutex // guards what follows
	followers []*follower
}

// open opens the record, which must not be open.
func (t *trial) open(keep Retention) {
	t.Helper()
	broker, err := t.config.Open(t.place, keep)
	t.supported(err)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	t.broker = broker
	t.live = t.follow(t.state().Newest)
}

// supported leaves the case out if the error says that a limit is not.
func (t *trial) supported(err error) {
	t.Helper()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("left out: %v", err)
	}
}

// close closes the record, if it is open, and waits for those who follow it.
func (t *trial) close() {
	t.Helper()
	if t.broker == nil {
		return
	}
	broker := t.broker
	t.broker, t.live = nil, nil
	for _, f := range t.followers {
		f.cancel()
	}
	if err := broker.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	for _, f := range t.followers {
		f.over("Close")
		f.wait()
		f.report()
	}
	t.followers = nil
}

func (t *trial) finish() {
	t.Helper()
	t.close()
}

func (t *trial) reopen(keep Retention) {
	t.Helper()
	t.close()
	t.open(keep)
}

// retain changes the retention, of the open record if that can be done.
func (t *trial) retain(keep Retention) {
	t.Helper()
	switch {
	case t.config.SetRetention != nil:
		err := t.config.SetRetention(t.broker, keep)
		t.supported(err)
		if err != nil {
			t.Fatalf("SetRetention: %v", err)
		}
	case t.config.Promise >= KeepsAfterClose:
		t.reopen(keep)
	default:
		t.Skip("left out: the retention of a record that was begun cannot be changed")
	}
}

// publish publishes what must be accepted.
func (t *trial) publish(events ...sse.Event) []sse.Position {
	t.Helper()
	positions, err := t.broker.Publish(t.Context(), events)
	if err != nil {
		t.Fatalf("Publish: %v", err)
	}
	if len(positions) != len(events) {
		t.Fatalf("Publish returned %d positions for %d events", len(positions), len(events))
	}
	return positions
}

func (t *trial) state() sse.State {
	t.Helper()
	state, err := t.broker.State(t.Context())
	if err != nil {
		t.Fatalf("State: %v", err)
	}
	if o, n := state.Oldest, state.Newest; o.Epoch != n.Epoch || o.Seq > n.Seq {
		t.Fatalf("State: oldest is %s and newest %s", o, n)
	}
	return state
}

// at returns a position of the record's epoch.
func (t *trial) at(seq uint64) sse.Position {
	t.Helper()
	return sse.Position{Epoch: t.state().Newest.Epoch, Seq: seq}
}

// record returns the entries that were published since the record was opened,
// and before if it keeps them. The record has no limits, and nobody publishes
// meanwhile.
func (t *trial) record() []sse.Entry {
	t.Helper()
	head := t.state().Newest
	t.live.until(head.Seq)
	followed := t.live.entries()
	if t.config.Promise == OrdersOnly {
		return followed
	}
	kept := t.kept()
	if len(kept) < len(followed) {
		t.Fatalf("%d entries are kept of the %d that were published", len(kept), len(followed))
	}
	t.equal("what is read and what was handed to a tail", kept[len(kept)-len(followed):], followed)
	return kept
}

// expect holds the record to what was published, by the rules of equal.
func (t *trial) expect(want []sse.Event) []sse.Entry {
	t.Helper()
	got := t.record()
	if len(got) != len(want) {
		t.Fatalf("the record has %d entries, %d were published:\n%s", len(got), len(want), list(got))
	}
	for i, e := range got {
		if e.Position != t.at(uint64(i+1)) {
			t.Fatalf("entry %d is at %s", i+1, e.Position)
		}
		if !sameEvent(e.Event, want[i]) {
			t.Fatalf("the entry at %s is\n%+v, what was published is\n%+v", e.Position, e.Event, want[i])
		}
	}
	return got
}

// equal holds entries to others, with their positions and times.
func (t *trial) equal(what string, got, want []sse.Entry) {
	t.Helper()
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || !sameEntry(got[i], want[i]) {
			from := max(0, i-2)
			t.Fatalf("%s differ at entry %d of %d and %d:\ngot\n%swant\n%s", what, i, len(got), len(want),
				list(got[min(from, len(got)):min(i+3, len(got))]), list(want[min(from, len(want)):min(i+3, len(want))]))
		}
	}
}

func sameEntry(a, b sse.Entry) bool {
	return a.Position == b.Position && a.Time.Equal(b.Time) && sameEvent(a.Event, b.Event)
}

// sameEvent compares all that subscribers see. A broker may keep the ID apart
// from the event.
func sameEvent(a, b sse.Event) bool {
	return slices.Equal(a.Channels, b.Channels) && a.Name == b.Name && a.Data == b.Data &&
		a.Retry == b.Retry && a.End == b.End && (a.ID == b.ID || a.ID == "" || b.ID == "")
}

func list(entries []sse.Entry) string {
	var text []byte
	for _, e := range entries {
		text = fmt.Appendf(text, "\t%s at %s on %q: %.60q id %q end %d\n",
			e.Position, e.Time.Format(time.RFC3339Nano), e.Event.Channels, e.Event.Data, e.Event.ID, e.Event.End)
	}
	if len(text) == 0 {
		return "\tnothing\n"
	}
	return string(text)
}

// fails holds an error to one that it must match.
func (t *trial) fails(what string, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: error is %v, not %v", what, err, want)
	}
}

// wait waits until something holds, by asking again and again.
func (t *trial) wait(what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(t.patience); !holds(); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain: %s", t.patience, what)
		}
		time.Sleep(time.Millisecond)
	}
}

// random returns a source of randomness whose seed is logged.
func (t *trial) random() *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	if text := os.Getenv("SSE_SEED"); text != "" {
		given, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("SSE_SEED is no number: %v", err)
		}
		seed = given
	}
	t.Logf("seed: SSE_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// lasting is how often something random is tried: many more times if SSE_LONG
// is set.
func lasting(times, long int) int {
	if os.Getenv("SSE_LONG") != "" {
		return long
	}
	return times
}

// on returns an event of a channel.
func on(channel, data string) sse.Event {
	return sse.Event{Channels: []string{channel}, Data: data}
}

// named returns an event of a channel with an ID.
func named(channel, data, id string) sse.Event {
	return sse.Event{Channels: []string{channel}, Data: data, ID: id}
}

// numbered returns events of a channel whose data are numbers.
func numbered(channel string, from, n int) []sse.Event {
	events := make([]sse.Event, n)
	for i := range events {
		events[i] = on(channel, strconv.Itoa(from+i))
	}
	return events
}
