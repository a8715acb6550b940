package sse

import (
	"context"
	"errors"
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
	head   Position
	tails  map[*memoryTail]struct{}
	closed chan struct{} // closed by Close
}

type memoryTail struct {
	deliver func([]Entry)
}

// errGap is returned by Tail for entries that are not kept.
var errGap = errors.New("sse: the memory broker keeps no entries, and some were published after that position")

// NewMemoryBroker returns an empty record with an epoch of its own.
func NewMemoryBroker() *MemoryBroker {
	return &MemoryBroker{
		head:   Position{Epoch: NewEpoch()},
		tails:  make(map[*memoryTail]struct{}),
		closed: make(chan struct{}),
	}
}

// Publish implements [Broker]. It fails only after Close, or with the error of a ctx that
// is done.
func (b *MemoryBroker) Publish(ctx context.Context, events []Event) ([]Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	positions := make([]Position, len(events))
	entries := make([]Entry, len(events))

	b.mu.Lock()
	defer b.mu.Unlock()
	if b.isClosed() {
		return nil, ErrClosed
	}
	now := time.Now() // under the lock, so that entries' times do not step back
	for i, e := range events {
		b.head.Seq++
		positions[i] = b.head
		entries[i] = Entry{Position: b.head, Time: now, Event: e}
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
	if after != b.head {
		return errGap
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

// Position implements [Broker].
func (b *MemoryBroker) Position(context.Context) (Position, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.head, nil
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
