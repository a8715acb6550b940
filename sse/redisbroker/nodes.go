package redisbroker

import (
	"context"
	"time"
)

const (
	// NodeLife is for how long a node counts as alive that does not tell so any
	// more. So long, at most, those who ask wait for one that has died, and its
	// streams count.
	NodeLife = 6 * time.Second
	// beatsInLife is how often a node tells that it is alive within that time.
	beatsInLife = 3
)

// live tells that this node is alive, while it follows the record, until the broker
// is closed.
func (b *Broker) live() {
	every := time.NewTicker(b.tuning.life / beatsInLife)
	defer every.Stop()
	for {
		if b.isTailed() {
			_, _ = b.beat(b.ctx, b.node) // what fails is noticed by the tail
		}
		select {
		case <-every.C:
		case <-b.ctx.Done():
			b.signOff()
			return
		}
	}
}

// isTailed reports whether anybody is there who can answer.
func (b *Broker) isTailed() bool {
	b.tailing.Lock()
	defer b.tailing.Unlock()
	return len(b.tails) > 0
}

// beat notes that a node is alive, if one is named, and returns those that are.
func (b *Broker) beat(ctx context.Context, node string) ([]string, error) {
	r, err := b.run(ctx, beatScript, []string{b.keys.nodes}, []string{node, b.lifeArg()})
	if err != nil {
		return nil, err
	}
	return r.AsStrSlice()
}

// signOff tells that nobody need wait for this node.
func (b *Broker) signOff() {
	ctx, cancel := b.within(context.WithoutCancel(b.ctx))
	defer cancel()
	client := *b.client.Load()
	// Without it the node counts as alive a little longer.
	_ = client.Do(ctx, client.B().Zrem().Key(b.keys.nodes).Member(b.node).Build()).Error()
}
