package boltbroker

import (
	"bytes"
	"context"
	"fmt"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/sse"
)

// followBytes is about how much a tail that catches up is given at a time.
const followBytes = 1 << 20

// check returns the error of a position behind which not everything is kept.
// The lock is held.
func (b *Broker) check(after sse.Position) error {
	switch {
	case b.closed:
		return sse.ErrClosed
	case after.Epoch != b.epoch, after.Seq > b.ledger.Head().Seq:
		return fmt.Errorf("%w: %s is not a position of this record, which is at %s", sse.ErrGone, after, b.ledger.Head())
	case after.Seq < b.oldest:
		return fmt.Errorf("%w: the oldest that is kept comes after %d, not after %d", sse.ErrGone, b.oldest, after.Seq)
	}
	return nil
}

// Read implements [sse.Broker].
func (b *Broker) Read(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
	if err := ctx.Err(); err != nil {
		return sse.Page{}, err
	}
	seqs, through, err := b.find(after, channels)
	if err != nil {
		return sse.Page{}, err
	}
	page := sse.Page{Through: sse.Position{Epoch: b.epoch, Seq: through}}
	err = b.view(func(tx *bbolt.Tx) error {
		record := tx.Bucket(bucketRecord)
		for i, size := 0, 0; i < len(seqs) && (i == 0 || size < bytes); i++ {
			key := keyOf(seqs[i])
			value := record.Get(key)
			if value == nil {
				return b.missing(seqs[i])
			}
			e, err := decodeEntry(b.epoch, key, value)
			if err != nil {
				return fmt.Errorf("%s is damaged: %w", b.path, err)
			}
			page.Entries = append(page.Entries, e)
			size += len(e.Event.Data)
		}
		return nil
	})
	if err != nil {
		return sse.Page{}, err
	}
	if n := len(page.Entries); n < len(seqs) {
		page.Through = page.Entries[n-1].Position
	}
	return page, nil
}

// find returns the seqs of the entries of a page, and the seq through which
// these are all.
func (b *Broker) find(after sse.Position, channels []string) ([]uint64, uint64, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if after.IsZero() {
		after = sse.Position{Epoch: b.epoch, Seq: b.oldest}
	}
	if err := b.check(after); err != nil {
		return nil, 0, err
	}
	seqs, through := b.index.find(after.Seq, b.ledger.Head().Seq, channels)
	return seqs, through, nil
}

// Count implements [sse.Broker].
func (b *Broker) Count(ctx context.Context, after sse.Position, channels []string, limit int) (int, error) {
	if n, ok, err := b.countOne(after, channels); ok || err != nil {
		return min(n, limit), err
	}
	n := 0
	for n < limit {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		seqs, through, err := b.find(after, channels)
		if err != nil {
			return 0, err
		}
		n += len(seqs)
		after = sse.Position{Epoch: b.epoch, Seq: through}
		if len(seqs) == 0 && b.atHead(after) {
			break
		}
	}
	return min(n, limit), nil
}

// countOne counts at once what no other channel can share.
func (b *Broker) countOne(after sse.Position, channels []string) (n int, ok bool, err error) {
	if len(channels) != 1 || isPattern(channels[0]) {
		return 0, false, nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if after.IsZero() {
		after = sse.Position{Epoch: b.epoch, Seq: b.oldest}
	}
	if err := b.check(after); err != nil {
		return 0, true, err
	}
	seqs := b.index[channels[0]]
	return len(seqs) - search(seqs, after.Seq), true, nil
}

func (b *Broker) atHead(at sse.Position) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return at == b.ledger.Head()
}

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
		deliver(entries)
		after = entries[len(entries)-1].Position
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
	if err := b.check(after); err != nil || after != b.ledger.Head() {
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

// follow returns the entries that come next, at least one, none of which is
// behind the head: the file may hold some of a commit that is not final.
func (b *Broker) follow(after sse.Position) (entries []sse.Entry, err error) {
	b.mu.Lock()
	head := b.ledger.Head().Seq
	b.mu.Unlock()
	err = b.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketRecord).Cursor()
		next, size := after.Seq+1, 0
		for key, value := cursor.Seek(keyOf(next)); key != nil && next <= head && size < followBytes; key, value = cursor.Next() {
			if !bytes.Equal(key, keyOf(next)) {
				break
			}
			e, err := decodeEntry(b.epoch, slices.Clone(key), value)
			if err != nil {
				return fmt.Errorf("%s is damaged: %w", b.path, err)
			}
			entries = append(entries, e)
			next++
			size += len(value)
		}
		return nil
	})
	if err == nil && len(entries) == 0 {
		err = b.missing(after.Seq + 1)
	}
	return entries, err
}

// missing returns why an entry that was kept a moment ago is not in the file.
func (b *Broker) missing(seq uint64) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if seq > b.oldest {
		return fmt.Errorf("%s was damaged while it was open: entry %d is missing", b.path, seq)
	}
	return fmt.Errorf("%w: entry %d was given up just now", sse.ErrGone, seq)
}
