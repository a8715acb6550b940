package boltbroker

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	// A commit takes about this many requests and bytes of data.
	commitRequests = 1024
	commitBytes    = 4 << 20
	// probeEvery is the time between two attempts to write to a file that
	// could not be written to.
	probeEvery = time.Second
)

// A request is one publish that waits for its commit.
type request struct {
	events    []sse.Event
	entries   []sse.Entry
	positions []sse.Position
	err       error
	done      chan struct{}
}

// Publish implements [sse.Broker]. It returns when the events are synced to the
// disk. A ctx that is done while others' events are being written withdraws
// the publish; from the moment it is taken into a commit, Publish waits for the
// outcome, since only that tells whether the events were kept.
func (b *Broker) Publish(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r := &request{events: events, done: make(chan struct{})}
	select {
	case <-b.closing:
		return nil, sse.ErrClosed
	default:
	}
	select {
	case b.requests <- r:
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-b.closing:
		return nil, sse.ErrClosed
	}
	<-r.done
	return r.positions, r.err
}

// commits takes requests and commits them until the broker is closed.
func (b *Broker) commits() {
	probe := time.NewTicker(probeEvery)
	defer probe.Stop()
	var last gathered
	for {
		select {
		case r := <-b.requests:
			start := time.Now()
			batch := b.gather(r, last)
			gathering := time.Since(start)
			b.commit(batch)
			last = gathered{requests: len(batch), took: time.Since(start) - gathering}
		case <-probe.C:
			b.probe()
		case <-b.closing:
			return
		}
	}
}

// gathered is what the last commit had.
type gathered struct {
	requests int
	took     time.Duration
}

// gather returns a request and those that wait by now.
//
// The publishers of the last commit were answered just now, and will be back
// with the next event in a moment: to commit the first of them alone would have
// all others wait for two syncs. So it waits for as many as there were, for a
// small part of the time that a commit takes.
func (b *Broker) gather(first *request, last gathered) []*request {
	batch := []*request{first}
	bytes := first.bytes()
	var late <-chan time.Time
	for len(batch) < commitRequests && bytes < commitBytes {
		select {
		case r := <-b.requests:
			batch = append(batch, r)
			bytes += r.bytes()
			continue
		default:
		}
		if len(batch) >= last.requests {
			break
		}
		if late == nil {
			late = time.After(last.took / 4)
		}
		select {
		case r := <-b.requests:
			batch = append(batch, r)
			bytes += r.bytes()
			continue
		case <-late:
		}
		break
	}
	return batch
}

func (r *request) bytes() (n int) {
	for i := range r.events {
		n += len(r.events[i].Data)
	}
	return n
}

// commit orders a batch, writes it, hands it to the tails and answers the
// publishers, in this order: nobody sees what is not kept.
func (b *Broker) commit(batch []*request) {
	entries, head := b.draft(batch)
	var err error
	if len(entries) > 0 {
		err = b.update(func(tx *bbolt.Tx) error { return b.write(tx, head, entries) })
	}
	b.settle(entries, err)
	for _, r := range batch {
		// One that only repeats what was kept before needs no write.
		if err != nil && r.err == nil && !kept(r.positions, head) {
			r.positions, r.err = nil, fmt.Errorf("%w: %w", sse.ErrUnavailable, err)
		}
		close(r.done)
	}
}

func kept(positions []sse.Position, head sse.Position) bool {
	for _, at := range positions {
		if at.Seq > head.Seq {
			return false
		}
	}
	return true
}

// draft orders the events of the requests. A request that is refused leaves the
// others alone. The head is that before them.
func (b *Broker) draft(batch []*request) (entries []sse.Entry, head sse.Position) {
	b.mu.Lock()
	defer b.mu.Unlock()
	head = b.ledger.Head()
	now := time.Now()
	for _, r := range batch {
		r.entries, r.positions, r.err = b.ledger.Draft(r.events, now)
		entries = append(entries, r.entries...)
	}
	return entries, head
}

// write puts entries behind the head into the file.
func (b *Broker) write(tx *bbolt.Tx, head sse.Position, entries []sse.Entry) error {
	record, ids := tx.Bucket(bucketRecord), tx.Bucket(bucketIDs)
	for _, bucket := range []*bbolt.Bucket{record, ids} {
		if err := dropBehind(bucket, head.Seq); err != nil {
			return err
		}
		bucket.FillPercent = 0.95 // nothing is ever put in between
	}
	var values []byte
	for i := range entries {
		e := &entries[i]
		key := keyOf(e.Position.Seq)
		start := len(values)
		values = appendEntry(values, key, e)
		if err := record.Put(key, values[start:]); err != nil {
			return err
		}
		if e.Event.ID == "" {
			continue
		}
		start = len(values)
		values = appendRepeat(values, key, sse.KeyOf(e.Event.ID), e.Time)
		if err := ids.Put(key, values[start:]); err != nil {
			return err
		}
	}
	return nil
}

// dropBehind deletes what stands behind the head: entries of a commit that
// failed although they were written, and whose publishers were told so.
//
// A commit of bbolt writes its pages, syncs, writes one of two meta pages in
// turn, and syncs again. If the last step fails, the new meta page may be in
// force, in memory and perhaps on the disk. If an earlier one fails, the old
// meta page is, and pages that a failed sync has lost were free under it:
// whatever the next commit needs, it writes anew. So it is enough to begin each
// write with taking back what nobody was promised.
func dropBehind(bucket *bbolt.Bucket, head uint64) error {
	cursor := bucket.Cursor()
	for key, _ := cursor.Last(); key != nil; key, _ = bucket.Cursor().Last() {
		seq, err := seqOf(key)
		if err != nil || seq <= head {
			return err
		}
		if err := bucket.Delete(key); err != nil {
			return err
		}
	}
	return nil
}

// settle makes the entries part of the record, or undoes their draft.
func (b *Broker) settle(entries []sse.Entry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.ledger.Rollback()
		b.fail(err)
		return
	}
	b.ledger.Commit()
	if len(entries) == 0 {
		return
	}
	b.recover()
	if b.oldest+1 == entries[0].Position.Seq {
		b.since = entries[0].Time
	}
	for i := range entries {
		b.index.add(&entries[i])
		b.bytes += storedBytes(&entries[i])
	}
	for t := range b.tails {
		t.deliver(entries)
	}
	if b.surplus(time.Now()) {
		b.wakeTrimming()
	}
}

// storedBytes is about what an entry takes in the file.
func storedBytes(e *sse.Entry) int64 {
	n := 32 + len(e.Event.Name) + len(e.Event.Data)
	for _, name := range e.Event.Channels {
		n += 1 + len(name)
	}
	return int64(n)
}

// fail notes that nothing can be written. The lock is held.
func (b *Broker) fail(err error) {
	if b.failure == nil {
		b.options.Logger.Error("cannot write the record; publishing is refused until it works again",
			slog.String("file", b.path), slog.Any("error", err))
	}
	b.failure = err
}

// recover notes that something could be written. The lock is held.
func (b *Broker) recover() {
	if b.failure != nil {
		b.failure = nil
		b.options.Logger.Info("the record can be written again", slog.String("file", b.path))
	}
}

// probe finds out whether a file that could not be written to can be now, so
// that the broker gets well without a publisher who tries.
func (b *Broker) probe() {
	b.mu.Lock()
	failed, head := b.failure != nil, b.ledger.Head()
	b.mu.Unlock()
	if !failed {
		return
	}
	err := b.update(func(tx *bbolt.Tx) error {
		if err := b.write(tx, head, nil); err != nil {
			return err
		}
		return putMeta(tx, keyProbe, []byte(time.Now().UTC().Format(time.RFC3339)))
	})
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.fail(err)
	} else {
		b.recover()
	}
}

// putMeta stores a value in the bucket meta.
func putMeta(tx *bbolt.Tx, key, value []byte) error {
	return tx.Bucket(bucketMeta).Put(key, seal(append([]byte(nil), value...), 0, key))
}
