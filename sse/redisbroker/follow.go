package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	// lookEvery is how often the record is looked at though entries come.
	lookEvery = time.Minute
	// followEntries is how many entries are taken at a time. They may be large.
	followEntries = 64
	// The pause before the next attempt to follow the record, the first time
	// and at most.
	leastPause = 50 * time.Millisecond
	mostPause  = 2 * time.Second
)

// errMoved means that what comes next is not in the stream: it is to be looked at
// what the record is now.
var errMoved = errors.New("the record is not where it was")

// follow hands new entries to the tails until the broker is closed, by one blocked
// XREAD after the other.
func (b *Broker) follow() {
	pause := leastPause
	for b.ctx.Err() == nil {
		progress, err := b.followOn()
		if b.ctx.Err() != nil {
			return
		}
		if !errors.Is(err, errMoved) {
			b.failed(following, err)
		}
		if isElsewhere(err) {
			b.reconnect()
		}
		if progress {
			pause = leastPause
		}
		select {
		case <-time.After(pause/2 + rand.N(pause/2)): // nodes must not come back in step
		case <-b.ctx.Done():
		}
		pause = min(2*pause, mostPause)
	}
}

// followOn follows the record until it cannot, and reports whether it got anything.
func (b *Broker) followOn() (progress bool, err error) {
	for {
		at, _, _, seen := b.followed()
		l, err := b.lookFrom(b.ctx, lookOnly, at, seen)
		if err != nil {
			return progress, err
		}
		b.resume(&l)
		b.works(following)
		for looked := time.Now(); time.Since(looked) < lookEvery; {
			some, err := b.next()
			if err != nil {
				return progress, err
			}
			if !some {
				break // look again
			}
			progress = true
		}
		progress = true
	}
}

func (b *Broker) followed() (at sse.Position, life string, asked uint64, seen int64) {
	b.tailing.Lock()
	defer b.tailing.Unlock()
	return b.at, b.life, b.asked, b.seen
}

// next waits for the entries and questions that follow, and hands them over: the
// questions first, so that none comes behind an event that it was put before. It
// reports false if there were none for some time.
func (b *Broker) next() (some bool, err error) {
	at, life, asked, _ := b.followed()
	streams, err := b.block(entryID(life, at.Seq), entryID(life, asked))
	if err != nil {
		return false, err
	}
	if raw := streams[b.keys.asks]; len(raw) > 0 {
		of, first, questions, err := parseQuestions(raw)
		if err != nil {
			return false, err
		}
		if of != life {
			return false, errMoved
		}
		b.handQuestions(first, questions)
	}
	raw := streams[b.keys.record]
	if len(raw) == 0 {
		return len(streams) > 0, nil
	}
	of, entries, err := parseEntries(at.Epoch, raw)
	if err != nil {
		return false, err
	}
	if of != life || entries[0].Position.Seq != at.Seq+1 {
		return false, errMoved
	}
	b.hand(entries)
	return true, nil
}

// block waits for what is in the streams of the record and of the questions behind ids.
// The connection is not used for anything else, and closed if it does not answer in time.
func (b *Broker) block(record, asks string) (map[string][]rueidis.XRangeSlice, error) {
	ctx, cancel := context.WithTimeoutCause(b.ctx, b.tuning.block+b.options.Load().Timeout, errSilent)
	defer cancel()
	client := *b.client.Load()
	r := client.Do(ctx, client.B().Xread().Count(followEntries).Block(b.tuning.block.Milliseconds()).Streams().Key(b.keys.record, b.keys.asks).Id(record, asks).Build())
	if err := r.Error(); err != nil {
		if rueidis.IsRedisNil(err) {
			return nil, nil
		}
		return nil, b.reason(ctx, err)
	}
	message, err := r.ToMessage()
	if err != nil {
		return nil, err
	}
	streams, err := message.AsXReadSlices()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errReply, err)
	}
	return streams, nil
}
