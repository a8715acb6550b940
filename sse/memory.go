package sse

import (
	"context"
	"sync"
	"time"
)

// MemoryBroker is the broker of one process that keeps nothing: it orders
// events and hands them on. What can be replayed is what the hub keeps, and
// both are gone with the process; the next life has another epoch, and every
// subscriber that comes back is told so by a reset.
//
// Publish runs the tails itself, so when it returns, the event has reached the
// history and the subscribers of every hub that tails.
type MemoryBroker struct {
	mu     sync.Mutex // guards what follows, and serialises deliver
	ledger *Ledger
	tails  map[*memoryTail]struct{}
	closed chan struct{} // closed by Close
}

type memoryTail struct {
	deliver func([]Entry)
}

// NewMemoryBroker returns an empty record with an epoch of its own.
func NewMemoryBroker() *MemoryBroker {
	return &MemoryBroker{
		ledger: NewLedger(Position{Epoch: NewEpoch()}, time.Time{}),
		tails:  make(map[*memoryTail]struct{}),
		closed: make(chan struct{}),
	}
}

// Publish implements [Broker]. It fails for a channel that has ended, when there are too
// many IDs to remember, after Close, and with the error of a ctx that is done.
func (b *MemoryBroker) Publish(ctx context.Context, events []Event) ([]Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isClosed() {
		return nil, ErrClosed
	}
	entries, positions, err := b.ledger.Draft(events, time.Now())
	if err != nil {
		return nil, err
	}
	b.ledger.Commit()
	if len(entries) == 0 {
		return positions, nil // all are repeats
	}
	for t := range b.tails {
		t.deliver(entries)
	}
	return positions, nil
}

// Tail implements [Broker]. It can only start at the newest entry, as nothing
// older is kept.
func (b *MemoryBroker) Tail(ctx context.Context, after Position, deliver func([]Entry)) error {
	t := &memoryTail{deliver: deliver}
	if err := b.attach(t, after); err != nil {
		return err
	}
	defer b.detach(t)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.closed:
		return ErrClosed
	}
}

func (b *MemoryBroker) attach(t *memoryTail, after Position) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isClosed() {
		return ErrClosed
	}
	if after != b.ledger.Head() {
		return ErrGone
	}
	b.tails[t] = struct{}{}
	t.deliver(nil)
	return nil
}

func (b *MemoryBroker) detach(t *memoryTail) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.tails, t)
}

// Read implements [Broker]. There is never anything to read.
func (b *MemoryBroker) Read(_ context.Context, after Position, _ []string, _ int) (Page, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	head := b.ledger.Head()
	switch {
	case b.isClosed():
		return Page{}, ErrClosed
	case after.IsZero() || after == head:
		return Page{Through: head}, nil
	}
	return Page{}, ErrGone
}

// Count implements [Broker].
func (b *MemoryBroker) Count(ctx context.Context, after Position, channels []string, _ int) (int, error) {
	_, err := b.Read(ctx, after, channels, 0)
	return 0, err
}

// State implements [Broker].
func (b *MemoryBroker) State(context.Context) (State, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isClosed() {
		return State{}, ErrClosed
	}
	head := b.ledger.Head()
	return State{Oldest: head, Newest: head, Ended: b.ledger.Ended()}, nil
}

// Health implements [Broker].
func (b *MemoryBroker) Health() error {
	if b.isClosed() {
		return ErrClosed
	}
	return nil
}

// Close implements [Broker]. It never fails, and may be called again.
func (b *MemoryBroker) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.isClosed() {
		close(b.closed)
	}
	return nil
}

func (b *MemoryBroker) isClosed() bool {
	select {
	case <-b.closed:
		return true
	default:
		return false
	}
}
