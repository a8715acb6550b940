package redisbroker

import (
	"context"
	"errors"
	"fmt"

	"github.com/caddy-sse/caddy-sse/sse"
)

// followBytes is about how much a tail that catches up is given at a time.
const followBytes = 1 << 20

// A tail is one call of Tail.
type tail struct {
	deliver func([]sse.Entry)
	at      sse.Position // up to where it has everything
	over    chan error   // takes why it cannot go on, once; guarded by Broker.tailing
}

// errBegan is returned to those who tail an epoch that this node has not come to yet.
var errBegan = errors.New("the record has just begun anew")

// Tail implements [sse.Broker]. What is kept is read by the caller; new entries come
// from the goroutine that follows the record for all tails of this node. A tail goes
// on when Redis is away for a while and comes back with the same record.
func (b *Broker) Tail(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
	leave, err := b.enter()
	if err != nil {
		return err
	}
	defer leave()
	if after.IsZero() {
		return fmt.Errorf("%w: nothing stands before the first entry", sse.ErrGone)
	}
	err = b.tail(ctx, &tail{deliver: deliver, at: after, over: make(chan error, 1)})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case b.ctx.Err() != nil:
		return sse.ErrClosed
	}
	return err
}

// tail follows until the record cannot be followed, ctx is done or the broker is
// closed; the error is that of the first.
func (b *Broker) tail(ctx context.Context, t *tail) error {
	l, err := b.look(ctx, lookOnly)
	if err != nil {
		return err
	}
	if err := l.check(t.at); err != nil {
		return err
	}
	for {
		attached, err := b.attach(t)
		if err != nil {
			return err
		}
		if attached {
			break
		}
		c, err := b.chunk(ctx, t.at, followBytes)
		if err != nil {
			return err
		}
		if ctx.Err() != nil || b.ctx.Err() != nil {
			return nil
		}
		if len(c.entries) > 0 {
			t.at = c.through
			t.deliver(c.entries)
		}
	}
	defer b.detach(t)
	_, _ = b.beat(ctx, b.node) // what is asked from now on is answered, and waited for; if it fails, live goes on
	select {
	case <-ctx.Done():
	case <-b.ctx.Done():
	case err = <-t.over:
		b.signOff() //nolint:contextcheck // until there is a tail again, nobody is here to answer
	}
	return err
}

// attach adds a tail that has everything up to where the record was followed, or
// further: it may have been told of a newer position by whoever published there.
func (b *Broker) attach(t *tail) (attached bool, err error) {
	b.tailing.Lock()
	defer b.tailing.Unlock()
	if b.at.Epoch != t.at.Epoch {
		return false, errBegan
	}
	if t.at.Seq < b.at.Seq {
		return false, nil
	}
	t.deliver(nil)
	b.tails[t] = struct{}{}
	return true, nil
}

func (b *Broker) detach(t *tail) {
	b.tailing.Lock()
	defer b.tailing.Unlock()
	delete(b.tails, t)
}

// hand gives new entries to the tails, which have everything before them.
func (b *Broker) hand(entries []sse.Entry) {
	b.tailing.Lock()
	defer b.tailing.Unlock()
	last := &entries[len(entries)-1]
	for t := range b.tails {
		fresh := entries
		for len(fresh) > 0 && fresh[0].Position.Seq <= t.at.Seq {
			fresh = fresh[1:]
		}
		if len(fresh) > 0 {
			t.at = last.Position
			t.deliver(fresh)
		}
	}
	b.at, b.seen = last.Position, last.Time.UnixMicro()
}

// resume takes over what the record is. If it is not the one that was followed, or
// gave up what comes next, the tails end.
func (b *Broker) resume(l *look) {
	b.tailing.Lock()
	defer b.tailing.Unlock()
	if l.epoch == b.at.Epoch && b.at.Seq >= l.oldest && b.at.Seq <= l.head {
		return
	}
	b.endTails(goneError(b.at, l.epoch, l.oldest, l.head))
	b.at, b.life, b.seen, b.asked = l.at(l.head), l.life, 0, l.asks
}

// endTails ends all tails for a reason. The lock is held.
func (b *Broker) endTails(err error) {
	b.log().Warn("the record cannot be followed from where this node is", errorAttr(err))
	for t := range b.tails {
		t.over <- err
	}
	clear(b.tails)
}

// handQuestions gives new questions to the tails. If some are missing, of which nobody
// knows what they were for, the tails end.
func (b *Broker) handQuestions(first uint64, questions []sse.Entry) {
	b.tailing.Lock()
	defer b.tailing.Unlock()
	if first != b.asked+1 {
		b.endTails(fmt.Errorf("%w: questions of other nodes up to %d were not heard", sse.ErrGone, first-1))
	}
	for t := range b.tails {
		t.deliver(questions)
	}
	b.asked = first + uint64(len(questions)) - 1
}
