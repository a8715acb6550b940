package sse_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A keeper is a broker that keeps its record until it is told to trim it. It
// reads small pages, and lets a test act at the worst moments.
type keeper struct {
	// beforeCount and beforeRead are called without a lock, if they are set.
	beforeCount, beforeRead func()
	// failing is returned by Count and Read, if it is set.
	failing error
	// most is how many entries a page holds.
	most int

	mu      sync.Mutex // guards what follows
	ledger  *sse.Ledger
	entries []sse.Entry
	oldest  uint64 // seq of the newest that was trimmed
	tails   []*func([]sse.Entry)
	closed  chan struct{}
	lost    chan struct{} // closed when the record is
	counts  int
	reads   int
}

func newKeeper() *keeper {
	return &keeper{
		most:   7,
		ledger: sse.NewLedger(sse.Position{Epoch: "kept"}, time.Time{}),
		closed: make(chan struct{}),
		lost:   make(chan struct{}),
	}
}

func (k *keeper) Publish(_ context.Context, events []sse.Event) ([]sse.Position, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	entries, positions, err := k.ledger.Draft(events, time.Now())
	if err != nil {
		return nil, err
	}
	k.ledger.Commit()
	k.entries = append(k.entries, entries...)
	for _, deliver := range k.tails {
		if len(entries) > 0 {
			(*deliver)(entries)
		}
	}
	return positions, nil
}

func (k *keeper) Tail(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
	k.mu.Lock()
	if after.Seq < k.oldest {
		k.mu.Unlock()
		return sse.ErrGone
	}
	if kept := k.entries[after.Seq-k.oldest:]; len(kept) > 0 {
		deliver(kept)
	}
	deliver(nil)
	k.tails = append(k.tails, &deliver)
	k.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-k.closed:
	case <-k.lost:
		return sse.ErrGone
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tails = slices.DeleteFunc(k.tails, func(d *func([]sse.Entry)) bool { return d == &deliver })
	return ctx.Err()
}

// kept returns the entries behind a position on the channels.
func (k *keeper) kept(after sse.Position, channels []string) ([]sse.Entry, error) {
	if !after.IsZero() && (after.Seq < k.oldest || after.Epoch != "kept") {
		return nil, sse.ErrGone
	}
	var found []sse.Entry
	for _, e := range k.entries {
		if e.Position.Seq > after.Seq && slices.ContainsFunc(e.Event.Channels, func(name string) bool { return covered(channels, name) }) {
			found = append(found, e)
		}
	}
	return found, nil
}

func (k *keeper) Read(_ context.Context, after sse.Position, channels []string, _ int) (sse.Page, error) {
	if k.beforeRead != nil {
		k.beforeRead()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.reads++
	if k.failing != nil {
		return sse.Page{}, k.failing
	}
	found, err := k.kept(after, channels)
	if err != nil {
		return sse.Page{}, err
	}
	through := k.ledger.Head()
	if len(found) > k.most {
		found = found[:k.most]
		through = found[k.most-1].Position
	}
	return sse.Page{Entries: found, Through: through}, nil
}

func (k *keeper) Count(_ context.Context, after sse.Position, channels []string, limit int) (int, error) {
	if k.beforeCount != nil {
		k.beforeCount()
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts++
	if k.failing != nil {
		return 0, k.failing
	}
	found, err := k.kept(after, channels)
	return min(len(found), limit), err
}

func (k *keeper) State(context.Context) (sse.State, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	newest := k.ledger.Head()
	return sse.State{Oldest: sse.Position{Epoch: newest.Epoch, Seq: k.oldest}, Newest: newest, Ended: k.ledger.Ended()}, nil
}

func (k *keeper) Health() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.failing
}

func (k *keeper) Close() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	select {
	case <-k.closed:
	default:
		close(k.closed)
	}
	return nil
}

// trim gives up all entries up to a seq.
func (k *keeper) trim(seq uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for k.oldest < min(seq, k.ledger.Head().Seq) {
		k.ledger.Forget(&k.entries[0])
		k.entries = k.entries[1:]
		k.oldest++
	}
}

// asked returns how often the record was counted and read.
func (k *keeper) asked() (counts, reads int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.counts, k.reads
}

// restart closes a hub and starts another on the same record.
func restart(t testing.TB, k *keeper, h *sse.Hub, options sse.Options) *sse.Hub {
	t.Helper()
	h.Close()
	next, err := sse.NewHub(t.Context(), k, options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(next.Close)
	return next
}

var _ sse.Broker = (*keeper)(nil)
