package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	// A page holds no more bytes than this and those of one event, whatever
	// is asked for.
	maxPage = 8 << 20
	// One round trip brings no more entries than this, and about as many
	// bytes while only some of them are wanted.
	chunkEntries = 4096
	chunkBytes   = 512 << 10
	// A page of some channels is the result of looking at no more entries
	// than this.
	scanEntries = 4 * chunkEntries
)

// goneError returns why there is nothing to be read behind a position.
func goneError(after sse.Position, epoch string, oldest, head uint64) error {
	if after.Epoch != epoch || after.Seq > head {
		return fmt.Errorf("%w: %s is not a position of this record, which is at %s", sse.ErrGone, after, sse.Position{Epoch: epoch, Seq: head})
	}
	return fmt.Errorf("%w: the oldest that is kept comes after %d, not after %d", sse.ErrGone, oldest, after.Seq)
}

// A chunk is a part of the record, of all channels.
type chunk struct {
	entries []sse.Entry
	through sse.Position // up to which it holds all
	last    bool         // nothing follows it
}

// chunk reads entries that follow a position, of all channels. The zero position
// stands before the oldest.
func (b *Broker) chunk(ctx context.Context, after sse.Position, bytes int) (chunk, error) {
	for try := 0; ; try++ {
		s, err := b.span(ctx, after, bytes)
		if err != nil {
			return chunk{}, err
		}
		if s.through == s.after {
			return chunk{through: sse.Position{Epoch: s.epoch, Seq: s.head}, last: true}, nil
		}
		entries, err := b.entries(ctx, &s)
		if err == nil && (after.IsZero() || entries[0].Position.Seq == s.after+1) {
			through := entries[len(entries)-1].Position
			return chunk{entries: entries, through: through, last: through.Seq >= s.head}, nil
		}
		if err != nil && !errors.Is(err, errHole) {
			return chunk{}, err
		}
		// Some were given up just now, or the record is damaged: if so, a look makes it begin anew.
		if _, err := b.look(ctx, lookOnly); err != nil {
			return chunk{}, err
		}
		if try == mostTries {
			return chunk{}, fmt.Errorf("the record gives up its oldest entries before they can be read: %w", errHole)
		}
	}
}

// mostTries is how often it is tried to read entries that are given up meanwhile.
const mostTries = 10

// span asks which entries are to be read.
func (b *Broker) span(ctx context.Context, after sse.Position, bytes int) (span, error) {
	args := []string{after.Epoch, strconv.FormatUint(after.Seq, 10), strconv.Itoa(min(max(bytes, 0), maxPage)), strconv.Itoa(chunkEntries)}
	r, err := b.run(ctx, pageScript, []string{b.keys.meta, b.keys.record}, args)
	if err != nil {
		return span{}, err
	}
	s, err := parseSpan(r)
	switch {
	case err != nil || !s.gone:
		return s, err
	case s.epoch == "" && after.IsZero(): // the record was lost, and begins anew
		l, err := b.look(ctx, lookOnly)
		return span{epoch: l.epoch, life: l.life, head: l.head, oldest: l.oldest, after: l.head, through: l.head}, err
	}
	return s, goneError(after, s.epoch, s.oldest, s.head)
}

// entries reads as many as a span has, from where it begins or, if what is there was given
// up meanwhile, from the oldest that is left. They are at least one.
func (b *Broker) entries(ctx context.Context, s *span) ([]sse.Entry, error) {
	ctx, cancel := b.within(ctx)
	defer cancel()
	client := *b.client.Load()
	r := client.Do(ctx, client.B().Xrange().Key(b.keys.record).Start(entryID(s.life, s.after+1)).End("+").Count(int64(s.through-s.after)).Build())
	if err := b.reason(ctx, r.Error()); err != nil {
		return nil, err
	}
	message, err := r.ToMessage()
	if err != nil {
		return nil, err
	}
	raw, err := message.AsXRangeSlices()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errReply, err)
	}
	life, entries, err := parseEntries(s.epoch, raw)
	if err == nil && life != s.life { // of another epoch, or there are none
		return nil, errHole
	}
	return entries, err
}

// Read implements [sse.Broker]. Redis has no index of channels: the record is read
// from the position on, and what is on other channels is left out here. So a page of
// one channel among many takes as long as one of all, and may be empty.
func (b *Broker) Read(ctx context.Context, after sse.Position, channels []string, bytes int) (sse.Page, error) {
	leave, err := b.enter()
	if err != nil {
		return sse.Page{}, err
	}
	defer leave()
	wanted := newFilter(channels)
	ask := min(bytes, maxPage)
	if !wanted.all {
		ask = chunkBytes
	}
	page, size := sse.Page{Through: after}, 0
	for scanned := 0; scanned < scanEntries; {
		c, err := b.chunk(ctx, page.Through, ask)
		if errors.Is(err, sse.ErrGone) && scanned > 0 {
			return page, nil // the next page will tell
		}
		if err != nil {
			return sse.Page{}, err
		}
		for i := range c.entries {
			page.Through = c.entries[i].Position
			if wanted.matches(&c.entries[i].Event) {
				page.Entries = append(page.Entries, c.entries[i])
				size += len(c.entries[i].Event.Data)
			}
			if len(page.Entries) > 0 && size >= min(bytes, maxPage) {
				return page, nil
			}
		}
		page.Through = c.through // also if there was nothing
		if scanned += len(c.entries); c.last || (wanted.all && len(page.Entries) > 0) {
			return page, nil
		}
	}
	return page, nil
}

// Count implements [sse.Broker]. What was said of Read goes for it as well.
func (b *Broker) Count(ctx context.Context, after sse.Position, channels []string, limit int) (int, error) {
	leave, err := b.enter()
	if err != nil {
		return 0, err
	}
	defer leave()
	if slices.Contains(channels, "*") {
		return b.countAll(ctx, after, limit)
	}
	wanted := newFilter(channels)
	at, n := after, 0
	for {
		c, err := b.chunk(ctx, at, chunkBytes)
		if errors.Is(err, sse.ErrGone) && after.IsZero() {
			at, n = after, 0 // what is left
			continue
		}
		if err != nil {
			return 0, err
		}
		for i := range c.entries {
			if wanted.matches(&c.entries[i].Event) {
				n++
			}
		}
		if n >= limit || c.last {
			return min(n, limit), nil
		}
		at = c.through
	}
}

// countAll counts what is on any channel, without reading it.
func (b *Broker) countAll(ctx context.Context, after sse.Position, limit int) (int, error) {
	l, err := b.look(ctx, lookOnly)
	if err != nil {
		return 0, err
	}
	if after.IsZero() {
		after = l.at(l.oldest)
	}
	if err := l.check(after); err != nil {
		return 0, err
	}
	return int(min(l.head-after.Seq, uint64(max(limit, 0)))), nil
}

// check returns the error of a position behind which not everything is kept.
func (l *look) check(after sse.Position) error {
	if after.Epoch != l.epoch || after.Seq > l.head || after.Seq < l.oldest {
		return goneError(after, l.epoch, l.oldest, l.head)
	}
	return nil
}
