package boltbroker

import (
	"bytes"
	"fmt"
	"log/slog"
	"time"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	// The oldest entries are given up in bites, between which publishers
	// write. Each is twice the one before as long as there is more, so that no
	// rate of publishing outruns it.
	leastBite, mostBite = 512, 16384
	// biteBytes is about how much a bite reads at most.
	biteBytes = 16 << 20
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
	more := b.surplus(time.Now())
	b.mu.Unlock()
	for most := leastBite; (more || b.biting != nil) && !b.isClosing(); most = min(2*most, mostBite) {
		var err error
		if more, err = b.trim(most); err != nil {
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
	return events-o.MaxEvents > o.MaxEvents/slackShare ||
		(b.bytes-o.MaxBytes > o.MaxBytes/slackShare && events > 1) ||
		(events > 0 && now.Sub(b.since)-o.MaxAge > o.MaxAge/slackShare)
}

// A bite is what one transaction gives up: the oldest entries, without data.
type bite struct {
	entries []sse.Entry
	bytes   int64
	since   time.Time // of the oldest that stays, if one does
	more    bool      // that one is surplus too
}

// trim gives up some of the oldest entries, and reports whether there is more.
//
// Memory gives them up first, so that nobody is led to what is just being
// deleted. But that they ended channels is forgotten last, since a channel that
// began anew before its end is gone would have ended when the file is opened
// again. If it fails, some may be gone from the file: they are tried again.
func (b *Broker) trim(most int) (more bool, err error) {
	if b.biting == nil {
		taken, err := b.bite(most)
		if err != nil {
			return false, err
		}
		b.giveUp(taken)
		if len(taken.entries) == 0 {
			return false, nil
		}
		b.biting = taken
	}
	taken := b.biting
	if err := b.tidy(func(tx *bbolt.Tx) error { return deleteEntries(tx, taken.entries) }); err != nil {
		return false, err
	}
	b.biting = nil
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range taken.entries {
		b.ledger.Forget(&taken.entries[i])
	}
	return taken.more, nil
}

// bite finds the oldest entries that are surplus. Of those that are too large
// together, the newest stays.
func (b *Broker) bite(most int) (*bite, error) {
	b.mu.Lock()
	options, head, oldest, kept := b.options, b.ledger.Head().Seq, b.oldest, b.bytes
	b.mu.Unlock()
	expired := time.Now().Add(-options.MaxAge)
	taken := new(bite)
	err := b.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketRecord).Cursor()
		for key, value := cursor.Seek(keyOf(oldest + 1)); key != nil; key, value = cursor.Next() {
			e, err := decodeEntry(b.epoch, key, value)
			if err != nil {
				return fmt.Errorf("%s is damaged: %w", b.path, err)
			}
			if e.Position.Seq > head { // of a commit that is not final
				break
			}
			left := int(head-oldest) - len(taken.entries)
			tooLarge := kept-taken.bytes > options.MaxBytes && left > 1
			surplus := left > options.MaxEvents || tooLarge || !e.Time.After(expired)
			if !surplus || len(taken.entries) == most || taken.bytes > biteBytes {
				taken.since, taken.more = e.Time, surplus
				break
			}
			taken.bytes += storedBytes(&e)
			e.Event.Data = ""
			taken.entries = append(taken.entries, e)
		}
		return nil
	})
	return taken, err
}

// giveUp takes entries out of memory.
func (b *Broker) giveUp(taken *bite) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for i := range taken.entries {
		e := &taken.entries[i]
		b.oldest = e.Position.Seq
		for _, name := range e.Event.Channels {
			b.index.cut(name, b.oldest)
		}
	}
	b.bytes -= taken.bytes
	if !taken.since.IsZero() {
		b.since = taken.since
	}
}

// deleteEntries deletes the oldest entries, and notes where the record is even
// if none is left.
func deleteEntries(tx *bbolt.Tx, entries []sse.Entry) error {
	record := tx.Bucket(bucketRecord)
	for i := range entries {
		if err := record.Delete(keyOf(entries[i].Position.Seq)); err != nil {
			return err
		}
	}
	last := &entries[len(entries)-1]
	return putMeta(tx, keyHead, appendHead(nil, last.Position.Seq, last.Time))
}

// trimIDs deletes the ids that the ledger does not remember any more.
func (b *Broker) trimIDs() error {
	b.mu.Lock()
	from := b.ledger.RemembersFrom(time.Now())
	b.mu.Unlock()
	for !b.isClosing() {
		keys, err := b.oldIDs(from)
		if err != nil || len(keys) < leastBite {
			return err // a few are not worth a sync
		}
		if err := b.tidy(func(tx *bbolt.Tx) error { return deleteIDs(tx, keys) }); err != nil {
			return err
		}
	}
	return nil
}

// oldIDs returns the keys of the ids before a seq, up to a bite of them.
func (b *Broker) oldIDs(from uint64) (keys [][]byte, err error) {
	end := keyOf(from)
	err = b.view(func(tx *bbolt.Tx) error {
		cursor := tx.Bucket(bucketIDs).Cursor()
		for key, _ := cursor.First(); key != nil && len(keys) < mostBite; key, _ = cursor.Next() {
			if bytes.Compare(key, end) >= 0 {
				break
			}
			keys = append(keys, bytes.Clone(key))
		}
		return nil
	})
	return keys, err
}

func deleteIDs(tx *bbolt.Tx, keys [][]byte) error {
	ids := tx.Bucket(bucketIDs)
	for _, key := range keys {
		if err := ids.Delete(key); err != nil {
			return err
		}
	}
	return ids.SetSequence(ids.Sequence() - uint64(len(keys)))
}
