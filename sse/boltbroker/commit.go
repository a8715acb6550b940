package boltbroker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
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
	// mostGathering is how long a commit waits at most for others to share it.
	mostGathering = 2 * time.Millisecond
	// probeBytes is what an attempt writes at least.
	probeBytes = 64 << 10
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
//
// There is one case in which nobody can know: if the last sync of a commit
// fails, and the process or the machine ends before the file could be written
// to again, events that were refused may be there whole. A repeat by ID is then
// answered with their positions.
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
	var last commitment
	for {
		first, waited := b.next(probe.C)
		if first == nil {
			return
		}
		expected := last.requests
		if waited {
			expected++ // there were more than the last commit had
		}
		batch := b.gather(first, expected, min(last.took/4, mostGathering))
		start := time.Now()
		b.commit(batch)
		last = commitment{requests: len(batch), took: time.Since(start)}
	}
}

// A commitment is what the last commit was like.
type commitment struct {
	requests int
	took     time.Duration
}

// next returns the next request, and whether it has waited for the last commit
// to end; nil when the broker is closed. While there is none it probes.
func (b *Broker) next(probe <-chan time.Time) (first *request, waited bool) {
	select {
	case first = <-b.requests:
		return first, true
	default:
	}
	for {
		select {
		case first = <-b.requests:
			return first, false
		case <-probe:
			b.probe()
		case <-b.closing:
			return nil, false
		}
	}
}

// gather returns a request and those that wait by now.
//
// The publishers of the last commit were answered just now, and will be back
// with the next event in a moment: to commit the first of them alone would have
// all others wait for two syncs. So it waits for as many as are expected, for a
// small part of the time that a commit takes.
func (b *Broker) gather(first *request, expected int, patience time.Duration) []*request {
	batch := []*request{first}
	bytes := first.bytes()
	var late <-chan time.Time
	for len(batch) < commitRequests && bytes < commitBytes {
		var r *request
		select {
		case r = <-b.requests:
		default:
			if expected > len(batch) && late == nil {
				late = time.After(patience)
			}
			if len(batch) >= expected {
				return batch
			}
			select {
			case r = <-b.requests:
			case <-late:
				return batch
			}
		}
		batch = append(batch, r)
		bytes += r.bytes()
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
		err = b.append(head, entries)
	}
	b.settle(entries, err)
	if len(entries) > 0 {
		b.note(err, dataBytes(batch))
	}
	for _, r := range batch {
		if err != nil && r.needs(head) {
			r.positions, r.err = nil, fmt.Errorf("%w: %w", sse.ErrUnavailable, err)
		}
		close(r.done)
	}
}

// append writes entries behind the head.
func (b *Broker) append(head sse.Position, entries []sse.Entry) error {
	b.writing.Lock()
	defer b.writing.Unlock()
	return b.commitLocked(func(tx *bbolt.Tx) error { return b.write(tx, head, entries) })
}

// needs reports whether the outcome of a request rests on what was to be kept
// behind the head. That of one that only repeats what was kept before does not,
// nor does that of one for whose channel an end was kept before.
func (r *request) needs(head sse.Position) bool {
	if ended, ok := errors.AsType[*sse.EndedError](r.err); ok {
		return ended.At.Seq > head.Seq
	}
	return slices.ContainsFunc(r.positions, func(at sse.Position) bool { return at.Seq > head.Seq })
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
//
// Each bucket has a number of its own, which bbolt calls its sequence, by which
// a missing end of it is found when the file is opened: of the record it is the
// newest seq, of the ids how many there are.
func (b *Broker) write(tx *bbolt.Tx, head sse.Position, entries []sse.Entry) error {
	record, ids := tx.Bucket(bucketRecord), tx.Bucket(bucketIDs)
	if record.Sequence() < head.Seq {
		return fmt.Errorf("%s was damaged while it was open: its newest entries are gone", b.path)
	}
	_, err := dropBehind(record, head.Seq)
	if err != nil {
		return err
	}
	dropped, err := dropBehind(ids, head.Seq)
	if err != nil {
		return err
	}
	added, err := put(record, ids, entries)
	if err != nil {
		return err
	}
	return errors.Join(
		record.SetSequence(head.Seq+uint64(len(entries))),
		ids.SetSequence(ids.Sequence()+added-dropped),
	)
}

// put appends entries and their ids, and returns how many have one.
func put(record, ids *bbolt.Bucket, entries []sse.Entry) (withID uint64, err error) {
	const full = 0.95 // nothing is ever put in between
	record.FillPercent, ids.FillPercent = full, full
	var values []byte
	for i := range entries {
		e := &entries[i]
		key := keyOf(e.Position.Seq)
		start := len(values)
		values = appendEntry(values, key, e)
		if err := record.Put(key, values[start:]); err != nil {
			return 0, err
		}
		if e.Event.ID == "" {
			continue
		}
		withID++
		start = len(values)
		values = appendRepeat(values, key, sse.KeyOf(e.Event.ID), e.Time)
		if err := ids.Put(key, values[start:]); err != nil {
			return 0, err
		}
	}
	return withID, nil
}

// dropBehind deletes what stands behind the head, and returns how much that is:
// entries of a commit that failed although they were written, and whose
// publishers were told so.
//
// A commit of bbolt writes its pages, syncs, writes one of two meta pages in
// turn, and syncs again. If the last step fails, the new meta page may be in
// force, in memory and perhaps on the disk. If an earlier one fails, the old
// meta page is, and pages that a failed sync has lost were free under it:
// whatever the next commit needs, it writes anew. So each write begins with
// taking back what nobody was promised, and before it rewriteMetas makes sure
// that memory and the disk agree.
func dropBehind(bucket *bbolt.Bucket, head uint64) (dropped uint64, err error) {
	for key, _ := bucket.Cursor().Last(); key != nil; key, _ = bucket.Cursor().Last() {
		seq, err := seqOf(key)
		if err != nil || seq <= head {
			return dropped, err
		}
		if err := bucket.Delete(key); err != nil {
			return dropped, err
		}
		dropped++
	}
	return dropped, nil
}

// settle makes the entries part of the record, or undoes their draft.
func (b *Broker) settle(entries []sse.Entry, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err != nil {
		b.ledger.Rollback()
		return
	}
	b.ledger.Commit()
	if len(entries) == 0 {
		return
	}
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

// note remembers whether the file could be written to, and how much could not
// be, and tells the operator when that has changed.
func (b *Broker) note(err error, bytes int) {
	b.mu.Lock()
	before, logger := b.failure, b.options.Logger
	b.failure, b.missing = err, max(b.missing, min(bytes, commitBytes))
	if err == nil {
		b.missing = 0
	}
	b.mu.Unlock()
	switch {
	case before == nil && err != nil:
		logger.Error("cannot write the record; publishing is refused until it works again",
			slog.String("file", b.path), slog.Any("error", err))
	case before != nil && err == nil:
		logger.Info("the record can be written again", slog.String("file", b.path))
	}
}

func dataBytes(batch []*request) (n int) {
	for _, r := range batch {
		n += r.bytes()
	}
	return n
}

// probe finds out whether a file that could not be written to can be now, so
// that the broker gets well without a publisher who tries. It writes as much as
// what failed and what bbolt needs beside it: a little room is in any file.
func (b *Broker) probe() {
	b.mu.Lock()
	failed, filler := b.failure != nil, make([]byte, 2*b.missing+probeBytes)
	b.mu.Unlock()
	if !failed {
		return
	}
	err := b.takeBack(func(tx *bbolt.Tx) error { return putMeta(tx, keyProbe, filler) })
	if err == nil {
		err = b.takeBack(dropProbe)
	}
	b.note(err, 0)
}

func dropProbe(tx *bbolt.Tx) error { return tx.Bucket(bucketMeta).Delete(keyProbe) }

// putMeta stores a value in the bucket meta.
func putMeta(tx *bbolt.Tx, key, value []byte) error {
	return tx.Bucket(bucketMeta).Put(key, seal(append([]byte(nil), value...), 0, key))
}
