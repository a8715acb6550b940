package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-sse/caddy-sse/sse"
)

const (
	// askTimeout is how long nodes that are alive have to answer.
	askTimeout = 10 * time.Second
	// answersLive is for how long Redis keeps answers that nobody has taken.
	answersLive = 30 * time.Second
	// recheckEvery is how often it is looked whether nodes that have not answered
	// are alive.
	recheckEvery = time.Second
	// maxQuestions is about how many questions Redis keeps, for nodes that are cut off.
	maxQuestions = 1000
	// maxAsking is how many questions a node may put at one time. Each waits for its
	// answers on a connection of its own.
	maxAsking = 64
	// marksLive is for how long a mark is kept.
	marksLive = 7 * 24 * time.Hour
)

// Ask implements [sse.SharedBroker]. It takes one round trip to ask, and as many as
// there are nodes to have their answers. Nodes are alive that have told so within
// [NodeLife].
func (b *Broker) Ask(ctx context.Context, question []byte) ([][]byte, error) {
	leave, err := b.enter()
	if err != nil {
		return nil, err
	}
	defer leave()
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	defer context.AfterFunc(b.ctx, cancel)() //nolint:contextcheck // Close does not wait for answers
	select {
	case b.asking <- struct{}{}:
		defer func() { <-b.asking }()
	case <-ctx.Done():
		return nil, fmt.Errorf("%w: too many questions wait for their answers", sse.ErrUnavailable)
	}
	if err := b.health.silence(); err != nil {
		return nil, unavailable(err)
	}
	id := sse.NewEpoch()
	waiting, err := b.pose(ctx, id, question)
	if err != nil {
		return nil, err
	}
	var answers [][]byte
	for len(waiting) > 0 {
		node, answer, err := b.awaitAnswer(ctx, id)
		switch {
		case ctx.Err() != nil:
			return answers, fmt.Errorf("%w: %d nodes have not answered", sse.ErrUnavailable, len(waiting))
		case err != nil:
			return answers, unavailable(err)
		case node == "": // there was none for a while
			if err := b.keepAlive(ctx, waiting); err != nil {
				return answers, unavailable(err)
			}
		case waiting[node]:
			delete(waiting, node)
			answers = append(answers, answer)
		}
	}
	return answers, nil
}

func unavailable(err error) error { return fmt.Errorf("%w: %w", sse.ErrUnavailable, err) }

// pose puts the question, and returns the nodes that are to answer.
func (b *Broker) pose(ctx context.Context, id string, question []byte) (map[string]bool, error) {
	args := append(b.settings(5), id, b.node, string(question), b.lifeArg(), strconv.Itoa(maxQuestions))
	r, err := b.run(ctx, askScript, append(b.keys.all(), b.keys.nodes, b.keys.asks), args)
	if err != nil {
		if ctx.Err() == nil { // else it is who asked that has left
			b.failed(writing, err)
		}
		return nil, unavailable(err)
	}
	nodes, err := r.AsStrSlice()
	if err != nil {
		return nil, unavailable(errReply)
	}
	waiting := make(map[string]bool, len(nodes)+1)
	for _, node := range append(nodes, b.node) {
		waiting[node] = true
	}
	return waiting, nil
}

func (b *Broker) lifeArg() string { return strconv.FormatInt(b.tuning.life.Microseconds(), 10) }

// awaitAnswer returns the next answer, and whose it is: nobody's if there is none for a
// while.
func (b *Broker) awaitAnswer(ctx context.Context, id string) (node string, answer []byte, err error) {
	ctx, cancel := context.WithTimeoutCause(ctx, recheckEvery+b.options.Load().Timeout, errSilent)
	defer cancel()
	client := *b.client.Load()
	r := client.Do(ctx, client.B().Blpop().Key(b.keys.answers+id).Timeout(recheckEvery.Seconds()).Build())
	if rueidis.IsRedisNil(r.Error()) {
		return "", nil, nil
	}
	if err := b.reason(ctx, r.Error()); err != nil {
		return "", nil, err
	}
	pair, err := r.AsStrSlice()
	if err != nil || len(pair) != 2 {
		return "", nil, errors.Join(errReply, err)
	}
	node, text, _ := strings.Cut(pair[1], separator)
	return node, []byte(text), nil
}

// keepAlive leaves of the nodes that are waited for those that are alive.
func (b *Broker) keepAlive(ctx context.Context, waiting map[string]bool) error {
	alive, err := b.beat(ctx, "")
	if err != nil {
		return err
	}
	is := make(map[string]bool, len(alive))
	for _, node := range alive {
		is[node] = true
	}
	for node := range waiting {
		if !is[node] {
			delete(waiting, node)
		}
	}
	return nil
}

// Answer implements [sse.SharedBroker].
func (b *Broker) Answer(ctx context.Context, q sse.Question, answer []byte) error {
	leave, err := b.enter()
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := b.within(ctx)
	defer cancel()
	client, key := *b.client.Load(), b.keys.answers+q.ID
	push := client.B().Rpush().Key(key).Element(b.node + separator + string(answer)).Build()
	expire := client.B().Expire().Key(key).Seconds(int64(answersLive.Seconds())).Build()
	for _, r := range client.DoMulti(ctx, push, expire) {
		if err := b.reason(ctx, r.Error()); err != nil {
			return err
		}
	}
	return nil
}

// Mark implements [sse.SharedBroker].
func (b *Broker) Mark(ctx context.Context, names ...string) error {
	leave, err := b.enter()
	if err != nil {
		return err
	}
	defer leave()
	ctx, cancel := b.within(ctx)
	defer cancel()
	client := *b.client.Load()
	sets := make(rueidis.Commands, len(names))
	for i, name := range names {
		sets[i] = client.B().Set().Key(b.keys.marks + name).Value("1").Ex(marksLive).Build()
	}
	for _, r := range client.DoMulti(ctx, sets...) {
		if err := b.reason(ctx, r.Error()); err != nil {
			return unavailable(err)
		}
	}
	return nil
}

// Marked implements [sse.SharedBroker].
func (b *Broker) Marked(ctx context.Context, name string) (bool, error) {
	leave, err := b.enter()
	if err != nil {
		return false, err
	}
	defer leave()
	if err := b.health.silence(); err != nil {
		return false, unavailable(err)
	}
	ctx, cancel := b.within(ctx)
	defer cancel()
	client := *b.client.Load()
	n, err := client.Do(ctx, client.B().Exists().Key(b.keys.marks+name).Build()).AsInt64()
	if err := b.reason(ctx, err); err != nil {
		return false, unavailable(err)
	}
	return n > 0, nil
}
