package redisbroker

import (
	"context"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A Tuning is what is not for users to change.
type Tuning struct {
	Window         time.Duration
	Repeats, Ended int
	Block, Life    time.Duration
}

// OpenTuned is Open with a tuning, of which zero is the default.
func OpenTuned(options Options, t Tuning) (*Broker, error) {
	tuned := defaultTuning
	if t.Window > 0 {
		tuned.window = t.Window
	}
	if t.Repeats > 0 {
		tuned.repeats = t.Repeats
	}
	if t.Ended > 0 {
		tuned.ended = t.Ended
	}
	if t.Block > 0 {
		tuned.block = t.Block
	}
	if t.Life > 0 {
		tuned.life = t.Life
	}
	return open(options, tuned)
}

// LookFrom looks at the record as a node does that has seen the entry at a position.
func (b *Broker) LookFrom(ctx context.Context, at sse.Position, seen time.Time) (newest sse.Position, err error) {
	l, err := b.lookFrom(ctx, lookOnly, at, seen.UnixMicro())
	return l.at(l.head), err
}
