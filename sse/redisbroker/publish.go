package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-sse/caddy-sse/sse"
)

// Publish implements [sse.Broker]. It takes one round trip, which it shares with
// those who publish at the same time. Once the events were sent, it waits for Redis
// even if ctx is done, since only the answer tells whether they were kept.
//
// There is one case in which nobody can know: if the connection breaks before the answer
// has come, the error matches [sse.ErrUnavailable] and the events may be in the record,
// whole. A repeat by ID is then answered with their positions. If a silent Redis goes on
// after [Options.Timeout], it refuses what it was sent before.
func (b *Broker) Publish(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	leave, err := b.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	if len(events) == 0 {
		return nil, nil
	}
	if reason := b.health.silence(); reason != nil {
		return nil, fmt.Errorf("%w: %w", sse.ErrUnavailable, reason)
	}
	positions, err := b.publish(context.WithoutCancel(ctx), events)
	if errors.Is(err, errLate) {
		// The server's clock was changed, is that of another server, or was not
		// known well. Nothing was kept.
		if _, err := b.look(ctx, lookOnly); err != nil {
			return nil, fmt.Errorf("%w: %w", sse.ErrUnavailable, err)
		}
		positions, err = b.publish(context.WithoutCancel(ctx), events)
	}
	if errors.Is(err, errReply) || errors.Is(err, errLate) {
		return nil, fmt.Errorf("%w: %w", sse.ErrUnavailable, err)
	}
	return positions, err
}

func (b *Broker) publish(ctx context.Context, events []sse.Event) ([]sse.Position, error) {
	r, err := b.run(ctx, publishScript, b.keys.all(), b.publishArgs(b.deadline(), events))
	if err != nil {
		b.failed(writing, err)
		return nil, fmt.Errorf("%w: %w", sse.ErrUnavailable, err)
	}
	b.works(writing)
	return parsePublished(r, len(events))
}

// A clock tells what the time was on the server when it was so much here.
type clock struct {
	server int64 // Unix, in microseconds
	here   time.Time
}

// deadline returns when a publish that begins now is given up, by the server's clock.
// What was sent to a server that is silent is still there when it speaks again, and
// would be kept long after its publisher was told that it was not. The deadline may be
// too early, by as much as the last look took, but not too late.
func (b *Broker) deadline() int64 {
	c := b.clock.Load()
	return c.server + (time.Since(c.here) + b.options.Load().Timeout).Microseconds()
}

var errLate = errors.New("the clock of redis is ahead of what it was")

func parsePublished(r rueidis.RedisResult, events int) ([]sse.Position, error) {
	reply, err := r.ToArray()
	if err != nil || len(reply) < 2 {
		return nil, errReply
	}
	kind, err := reply[0].ToString()
	switch {
	case err == nil && kind == "ok" && len(reply) == 2+events:
		return parsePositions(reply[1:])
	case err == nil && kind == "ended" && len(reply) == 5:
		return nil, parseRefusal(reply[1:])
	case err == nil && kind == "late":
		return nil, errLate
	case err == nil && kind == "full":
		known, err := reply[1].AsInt64()
		if err != nil {
			return nil, errReply
		}
		return nil, fmt.Errorf("%w: %d ids of publishers are remembered, as many as can be, each for %s to twice as long",
			sse.ErrUnavailable, known, sse.RepeatWindow)
	}
	return nil, errReply
}

// parsePositions reads an epoch and seqs.
func parsePositions(reply []rueidis.RedisMessage) ([]sse.Position, error) {
	epoch, err := reply[0].ToString()
	if err != nil {
		return nil, errReply
	}
	positions := make([]sse.Position, len(reply)-1)
	for i := range positions {
		seq, err := reply[i+1].AsUint64()
		if err != nil {
			return nil, errReply
		}
		positions[i] = sse.Position{Epoch: epoch, Seq: seq}
	}
	return positions, nil
}

// parseRefusal reads which event is on a channel that has ended: epoch, index,
// channel, and where it ended.
func parseRefusal(reply []rueidis.RedisMessage) error {
	epoch, err1 := reply[0].ToString()
	index, err2 := reply[1].AsInt64()
	channel, err3 := reply[2].ToString()
	seq, err4 := reply[3].AsUint64()
	if errors.Join(err1, err2, err3, err4) != nil {
		return errReply
	}
	refusal := &sse.EndedError{Index: int(index), Channel: channel}
	if seq > 0 {
		refusal.At = sse.Position{Epoch: epoch, Seq: seq}
	}
	return refusal
}

// serverTime returns the time by the server's clock, Unix in microseconds.
func (b *Broker) serverTime() int64 {
	c := b.clock.Load()
	return c.server + time.Since(c.here).Microseconds()
}
