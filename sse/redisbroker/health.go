package redisbroker

import (
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-sse/caddy-sse/sse"
)

// probeEvery is the time between two attempts to write to a Redis that did not take
// the last write.
const probeEvery = time.Second

// What a broker does with Redis, each of which can fail while the other works.
type work int

const (
	writing work = iota
	following
	works
)

func (w work) String() string {
	if w == writing {
		return "publish"
	}
	return "follow the record"
}

// health knows what does not work, and why.
type health struct {
	failures [works]atomic.Pointer[error]
}

// silence returns why nothing should be written now: a Redis that does not even refuse
// would keep all publishers waiting for as long as the first.
func (h *health) silence() error {
	if failure := h.failures[writing].Load(); failure != nil && errors.Is(*failure, errSilent) {
		return *failure
	}
	return nil
}

// Health implements [sse.Broker]. It is nil while this node can follow the record
// and the last attempt to write to it did not fail. It takes some seconds to notice a
// Redis that has become silent.
func (b *Broker) Health() error {
	if b.ctx.Err() != nil {
		return sse.ErrClosed
	}
	for w := range b.health.failures {
		if failure := b.health.failures[w].Load(); failure != nil {
			return *failure
		}
	}
	return nil
}

// failed notes that something does not work.
func (b *Broker) failed(w work, err error) {
	before := b.health.failures[w].Swap(&err)
	if before == nil || !isSameTrouble(*before, err) {
		b.log().Error("cannot "+w.String()+" in Redis; trying again until it works", errorAttr(err))
	}
	if w == writing {
		signal(b.doubts)
	}
}

// isSameTrouble reports whether nobody need be told of an error after another. How a broken
// connection shows is chance, and takes turns with each attempt.
func isSameTrouble(a, b error) bool {
	return a.Error() == b.Error() || (isBroken(a) && isBroken(b))
}

func isBroken(err error) bool {
	_, refused := errors.AsType[*rueidis.RedisError](err)
	return !refused && !errors.Is(err, errSilent) && !errors.Is(err, errReply)
}

// works notes that something works.
func (b *Broker) works(w work) {
	if b.health.failures[w].Load() == nil {
		return // as nearly always
	}
	if b.health.failures[w].Swap(nil) != nil {
		b.log().Info("can " + w.String() + " in Redis again")
	}
}

// watch finds out when a Redis takes writes again that did not, and gives up what new
// bounds do not keep, until the broker is closed.
func (b *Broker) watch() {
	for {
		select {
		case <-b.doubts:
			b.probe()
		case <-b.trims:
			_, _ = b.look(b.ctx, lookOnly) // the next look trims as well
		case <-b.logins:
			b.logInAnew()
		case <-b.ctx.Done():
			return
		}
	}
}

// probe writes until it works.
func (b *Broker) probe() {
	for b.health.failures[writing].Load() != nil {
		select {
		case <-time.After(probeEvery):
		case <-b.ctx.Done():
			return
		}
		_, err := b.look(b.ctx, lookProbe)
		switch {
		case b.ctx.Err() != nil:
			return
		case err == nil:
			b.works(writing)
		default:
			b.failed(writing, err)
			if isElsewhere(err) {
				b.reconnect()
			}
		}
	}
}

// isElsewhere reports whether an error says that the master is another server, or that
// this connection is not logged in any more, or could not be when it was made again by
// itself, with a password that has changed since.
func isElsewhere(err error) bool {
	refused, ok := errors.AsType[*rueidis.RedisError](err)
	return ok && (strings.Contains(refused.Error(), "READONLY") ||
		strings.HasPrefix(refused.Error(), "NOAUTH") || strings.HasPrefix(refused.Error(), "WRONGPASS"))
}

// reconnect replaces the connections: the name of the server may lead elsewhere by
// now, which one that is open would never find out.
func (b *Broker) reconnect() {
	client, err := rueidis.NewClient(*b.connect.Load())
	if err != nil {
		return // the old one says why
	}
	old := b.client.Swap(&client)
	(*old).Close()
}

// logInAnew replaces the connections when others are wanted. Nobody notices: the old ones
// are closed when all that they were used for is over.
func (b *Broker) logInAnew() {
	client, err := rueidis.NewClient(*b.connect.Load())
	if err != nil {
		b.log().Error("cannot connect to Redis with the new settings; trying again, and going on with the old connections", errorAttr(err))
		b.later(probeEvery, func() { signal(b.logins) })
		return
	}
	old := b.client.Swap(&client)
	b.later(b.tuning.block+b.options.Load().Timeout, (*old).Close)
}

// later does something after some time, or when the broker is closed.
func (b *Broker) later(pause time.Duration, do func()) {
	b.running.Go(func() {
		select {
		case <-time.After(pause):
		case <-b.ctx.Done():
		}
		do()
	})
}

func errorAttr(err error) slog.Attr { return slog.Any("error", err) }
