package boltbroker

import (
	"context"
	"fmt"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/sse"
)

// followBytes is about how much a tail that catches up is given at a time.
const followBytes = 1 << 20

// Tail implements [sse.Broker]. Live entries are delivered by the goroutine that
// commits, so an event has reached deliver when its Publish returns.
func (b *Broker) Tail(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return sse.ErrClosed
	}
	b.running.Add(1) // before Close can wait
	b.mu.Unlock()
	defer b.running.Done()

	t := &tail{deliver: deliver}
	for {
		attached, err := b.attach(t, after)
		if err != nil {
			return err
		}
		if attached {
			break
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		entries, err := b.follow(after)
		if err != nil {
			return err
		}
		if len(entries) > 0 {
			deliver(entries)
			after = entries[len(entries)-1].Position
		}
	}
	defer b.detach(t)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-b.closing:
		return sse.ErrClosed
	}
}

// attach adds a tail that has everything up to the head.
func (b *Broker) attach(t *tail, after sse.Position) (attached bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if after.IsZero() {
		return false, fmt.Errorf("%w: nothing stands before the first entry", sse.ErrGone)
	}
	if _, err := b.check(after); err != nil || after != b.ledger.Head() {
		return false, err
	}
	t.deliver(nil)
	b.tails[t] = struct{}{}
	return true, nil
}

func (b *Broker) detach(t *tail) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.tails, t)
}

// follow returns the entries that come next, none of which is behind the head:
// the file may hold some of a commit that is not final.
func (b *Broker) follow(after sse.Position) ([]sse.Entry, error) {
	p, err := b.find(after, []string{"*"})
	if err != nil {
		return nil, err
	}
	err = b.view(func(tx *bbolt.Tx) error { return p.read(tx.Bucket(bucketRecord), followBytes) })
	if err != nil {
		return nil, b.lost(err) // if nil, attach will say that they are gone
	}
	return p.entries, nil
}
