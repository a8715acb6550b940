package boltbroker

import (
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	// The oldest entries are given up in bites, between which publishers
	// write. A bite grows with what is surplus, so that no rate of publishing
	// outruns it.
	leastBite, mostBite = 512, 16384
	// slackShare is the part by which a bound may be exceeded before anything
	// is given up.
	slackShare = 16
	// trimEvery is how often it is looked whether something has grown old.
	trimEvery = time.Second
)

func (b *Broker) wakeTrimming() {
	select {
	case b.trimming <- struct{}{}:
	default:
	}
}

// trims gives up what is surplus until the broker is closed.
func (b *Broker) trims() {
	ticker := time.NewTicker(trimEvery)
	defer ticker.Stop()
	reported := ""
	for {
		select {
		case <-b.trimming:
		case <-ticker.C:
		case <-b.closing:
			return
		}
		err := b.trimAll()
		if err != nil && err.Error() != reported {
			reported = err.Error()
			b.logger().Error("cannot give up old events; trying again", slog.String("file", b.path), slog.Any("error", err))
		}
	}
}

func (b *Broker) logger() *slog.Logger {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.options.Logger
}

// trimAll gives up the oldest entries until the bounds hold, and the ids that
// are not remembered any more.
func (b *Broker) trimAll() error {
	b.mu.Lock()
	surplus := b.surplus(time.Now())
	b.mu.Unlock()
	for more := surplus; more && !b.isClosing(); {
		var err error
		if more, err = b.trim(); err != nil {
			return err
		}
	}
	return b.trimIDs()
}

func (b *Broker) isClosing() bool {
	select {
	case <-b.closing:
		return true
	default:
		return false
	}
}

// surplus reports whether a bound is exceeded by its slack. The lock is held.
func (b *Broker) surplus(now time.Time) bool {
	o := b.options
	events := int(b.ledger.Head().Seq - b.oldest)
	return events > o.MaxEvents+o.MaxEvents/slackShare ||
		(b.bytes > o.MaxBytes+o.MaxBytes/slackShare && events > 1) ||
		(events > 0 && now.Sub(b.since) > o.MaxAge+o.MaxAge/slackShare)
}

// A bite is what one transaction gives up.
type bite struct {
	entries []sse.Entry
	bytes   int64
	since   time.Time // of the oldest that stays, if one does
}

// trim gives up a bite of the oldest entries, and reports whether there is more.
// Of one that is too large alone, the newest stays.
func (b *Broker) trim() (more bool, err error) {
	b.mu.Lock()
	options, head, oldest, bytes := b.options, b.ledger.Head(), b.oldest, b.bytes
	b.mu.Unlock()

	excess := int(head.Seq-oldest) - options.MaxEvents
	most := min(max(excess/4, leastBite), mostBite)
	expired := time.Now().Add(-options.MaxAge)
	var taken bite
	err = b.update(func(tx *bbolt.Tx) error {
		taken = bite{}
		cursor := tx.Bucket(bucketRecord).Cursor()
		for key, value := cursor.First(); key != nil; key, value = cursor.Next() {
			e, err := decodeEntry(b.epoch, key, value)
			if err != nil {
				return fmt.Errorf("%s is damaged: %w", b.path, err)
			}
			left := int(head.Seq-oldest) - len(taken.entries)
			tooLarge := bytes-taken.bytes > options.MaxBytes && left > 1
			surplus := left > options.MaxEvents || tooLarge || !e.Time.After(expired)
			if e.Position.Seq > head.Seq || !surplus || len(taken.entries) == most {
				taken.since, more = e.Time, surplus && e.Position.Seq <= head.Seq
				break
			}
			taken.entries = append(taken.entries, e)
			taken.bytes += storedBytes(&e)
		}
		return deleteEntries(tx, taken.entries)
	})
	if err != nil {
		return false, err
	}
	b.forget(taken)
	return more, nil
}

// deleteEntries deletes the oldest entries, and notes where the record is even
// if none is left.
func deleteEntries(tx *bbolt.Tx, entries []sse.Entry) error {
	if len(entries) == 0 {
		return nil
	}
	record := tx.Bucket(bucketRecord)
	for i := range entries {
		if err := record.Delete(keyOf(entries[i].Position.Seq)); err != nil {
			return err
		}
	}
	last := &entries[len(entries)-1]
	return putMeta(tx, keyHead, appendHead(nil, last.Position.Seq, last.Time))
}

// forget takes entries that are no longer in the file out of memory.
func (b *Broker) forget(taken bite) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range taken.entries {
		e := &taken.entries[i]
		b.oldest = e.Position.Seq
		b.index.dropOldest(e)
		b.ledger.Forget(e)
	}
	b.bytes -= taken.bytes
	if !taken.since.IsZero() {
		b.since = taken.since
	}
}

// trimIDs deletes the ids that are too old to matter.
func (b *Broker) trimIDs() error {
	expired := time.Now().Add(-sse.RepeatWindow)
	for !b.isClosing() {
		keys, err := b.oldIDs(expired)
		if err != nil || len(keys) < leastBite {
			return err // a few are not worth a sync
		}
		err = b.update(func(tx *bbolt.Tx) error {
			ids := tx.Bucket(bucketIDs)
			for _, key := range keys {
				if err := ids.Delete(key); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// oldIDs returns the keys of ids from before a time, up to a bite of them.
func (b *Broker) oldIDs(expired time.Time) (keys [][]byte, err error) {
	err = b.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketIDs).Cursor()
		for key, value := cursor.First(); key != nil && len(keys) < mostBite; key, value = cursor.Next() {
			r, err := decodeRepeat(key, value)
			if err != nil {
				return fmt.Errorf("%s is damaged: %w", b.path, err)
			}
			if r.Time.After(expired) {
				break
			}
			keys = append(keys, keyOf(r.Seq))
		}
		return nil
	})
	return keys, err
}
