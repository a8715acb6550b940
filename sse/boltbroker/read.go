package boltbroker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	// A page holds no more entries than this, and no more bytes of data
	// than maxPage and those of one event, whatever is asked for.
	pageEntries = 1024
	maxPage     = 8 << 20
	// A page for which the record itself is searched looks at no more
	// entries and bytes than this.
	scanEntries = 8192
	scanBytes   = 4 << 20
	// countNames is how many channels are looked at while the lock is held.
	countNames = 4096
)

// A missingError means that an entry is not in the file that was in memory.
type missingError uint64

func (e missingError) Error() string { return fmt.Sprintf("entry %d is missing", uint64(e)) }

// check returns the error of a position behind which not everything is kept.
// The zero position becomes that before the oldest entry. The lock is held.
func (b *Broker) check(after sse.Position) (sse.Position, error) {
	switch {
	case b.closed:
		return after, sse.ErrClosed
	case after.IsZero():
		return b.at(b.oldest), nil
	case after.Epoch != b.epoch, after.Seq > b.ledger.Head().Seq:
		return after, fmt.Errorf("%w: %s is not a position of this record, which is at %s", sse.ErrGone, after, b.ledger.Head())
	case after.Seq < b.oldest:
		return after, fmt.Errorf("%w: the oldest that is kept comes after %d, not after %d", sse.ErrGone, b.oldest, after.Seq)
	}
	return after, nil
}

// Read implements [sse.Broker].
func (b *Broker) Read(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
	for {
		if err := ctx.Err(); err != nil {
			return sse.Page{}, err
		}
		p, err := b.find(after, channels)
		if err != nil {
			return sse.Page{}, err
		}
		err = b.view(func(tx *bbolt.Tx) error { return p.read(tx.Bucket(bucketRecord), min(bytes, maxPage)) })
		if err == nil {
			return sse.Page{Entries: p.entries, Through: b.at(p.through)}, nil
		}
		if err := b.lost(err); err != nil {
			return sse.Page{}, err
		}
	}
}

// lost returns nil for a missing entry that memory knows to be gone: then it is
// to be told anew what is kept. Of other errors it returns why the file cannot be
// read.
func (b *Broker) lost(err error) error {
	missing, ok := errors.AsType[missingError](err)
	if !ok {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if uint64(missing) > b.oldest {
		return fmt.Errorf("%s was damaged while it was open: %w", b.path, err)
	}
	return nil
}

// A pager reads one page.
type pager struct {
	broker  *Broker
	after   uint64
	through uint64 // up to which the page holds all there is
	seqs    []uint64
	wanted  *filter // of what is searched, nil if that is everything
	search  bool    // the record itself, as there are no seqs
	entries []sse.Entry
}

// find prepares a page: it returns the seqs of its entries, or how to search
// for them.
func (b *Broker) find(after sse.Position, channels []string) (*pager, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	after, err := b.check(after)
	if err != nil {
		return nil, err
	}
	p := &pager{broker: b, after: after.Seq, through: b.ledger.Head().Seq}
	if p.search = slices.Contains(channels, "*"); p.search {
		return p, nil
	}
	lists, ok := b.index.lists(after.Seq, channels)
	if !ok {
		p.search, p.wanted = true, newFilter(channels)
		return p, nil
	}
	if p.seqs = merge(lists, pageEntries); len(p.seqs) == pageEntries {
		p.through = p.seqs[pageEntries-1]
	}
	return p, nil
}

func (p *pager) read(record *bbolt.Bucket, bytes int) error {
	p.entries = nil
	if p.search {
		return p.scan(record, bytes)
	}
	size := 0
	for i, seq := range p.seqs {
		if i > 0 && size >= bytes {
			p.through = p.seqs[i-1]
			return nil
		}
		key := keyOf(seq)
		value := record.Get(key)
		if value == nil {
			return missingError(seq)
		}
		s, err := parseEntry(key, value)
		if err != nil {
			return fmt.Errorf("%s is damaged: %w", p.broker.path, err)
		}
		p.entries = append(p.entries, s.entry(p.broker.epoch))
		size += len(s.data)
	}
	return nil
}

// scan searches the record for what is wanted.
func (p *pager) scan(record *bbolt.Bucket, bytes int) error {
	cursor := record.Cursor()
	start := keyOf(p.after + 1)
	key, value := cursor.Seek(start)
	size, scanned := 0, 0
	for seq := p.after + 1; seq <= p.through; seq++ {
		full := len(p.entries) > 0 && (size >= bytes || len(p.entries) == pageEntries)
		if full || scanned >= scanBytes || seq-p.after > scanEntries {
			p.through = seq - 1
			return nil
		}
		if key == nil {
			return missingError(seq)
		}
		s, err := parseEntry(key, value)
		if err != nil {
			return fmt.Errorf("%s is damaged: %w", p.broker.path, err)
		}
		if s.seq != seq {
			return missingError(seq)
		}
		if p.wanted == nil || p.wanted.matches(&s) {
			p.entries = append(p.entries, s.entry(p.broker.epoch))
			size += len(s.data)
		}
		scanned += len(value)
		key, value = cursor.Next()
	}
	return nil
}

// Count implements [sse.Broker].
func (b *Broker) Count(ctx context.Context, after sse.Position, channels []string, limit int) (int, error) {
	c, err := b.beginCount(after, channels, limit)
	if err != nil {
		return 0, err
	}
	for _, item := range channels {
		if err := b.countItem(ctx, c, item); err != nil {
			return 0, err
		}
	}
	return min(c.n, limit), nil
}

// A counter counts seqs, each once.
type counter struct {
	from  sse.Position // as it was asked for
	after sse.Position // the same, but never zero
	head  uint64
	limit int
	n     int
	seen  []uint64 // a bit for each seq behind after; nil if none can come twice
}

func (b *Broker) beginCount(after sse.Position, channels []string, limit int) (*counter, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	from := after
	after, err := b.check(from)
	if err != nil {
		return nil, err
	}
	c := &counter{from: from, after: after, head: b.ledger.Head().Seq, limit: limit}
	behind := c.head - after.Seq
	if slices.Contains(channels, "*") {
		c.n = int(min(behind, uint64(max(limit, 0))))
		c.limit = 0
	}
	if len(channels) > 1 || (len(channels) == 1 && strings.HasSuffix(channels[0], "*")) {
		c.seen = make([]uint64, behind/64+1)
	}
	return c, nil
}

// countItem counts what is on a channel, or those of a pattern.
func (b *Broker) countItem(ctx context.Context, c *counter, item string) error {
	prefix, isPattern := strings.CutSuffix(item, "*")
	for from, more := prefix, true; more && c.n < c.limit; {
		if err := ctx.Err(); err != nil {
			return err
		}
		var err error
		if isPattern {
			from, more, err = b.countPrefix(c, prefix, from)
		} else {
			more, err = false, b.countName(c, item)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (b *Broker) countName(c *counter, name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.recheck(c); err != nil {
		return err
	}
	if ch := b.index.channels[name]; ch != nil {
		c.add(ch)
	}
	return nil
}

// countPrefix counts what is on some of the channels with a prefix, and returns
// with which to go on, if there are more.
func (b *Broker) countPrefix(c *counter, prefix, from string) (next string, more bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.recheck(c); err != nil {
		return "", false, err
	}
	visited := 0
	b.index.names.each(prefix, from, func(ch *channel) bool {
		if visited++; visited > countNames {
			next, more = ch.name, true
			return false
		}
		c.add(ch)
		return c.n < c.limit
	})
	return next, more, nil
}

// recheck returns the error of a count whose entries are given up meanwhile. One
// from the oldest on goes on with what is left. The lock is held.
func (b *Broker) recheck(c *counter) error {
	_, err := b.check(c.from)
	return err
}

func (c *counter) add(ch *channel) {
	for _, seq := range ch.behind(c.after.Seq) {
		if seq > c.head || c.n >= c.limit {
			return
		}
		if c.seen == nil {
			c.n++
			continue
		}
		at := seq - c.after.Seq - 1
		word, bit := &c.seen[at/64], uint64(1)<<(at%64)
		if *word&bit == 0 {
			*word |= bit
			c.n++
		}
	}
}
