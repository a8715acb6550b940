package redisbroker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A Broker keeps a record in Redis, which any number of nodes share. It implements
// [sse.Broker]. Create it with [Open].
type Broker struct {
	keys    keys
	node    string // what other nodes know this one by
	connect atomic.Pointer[rueidis.ClientOption]
	client  atomic.Pointer[rueidis.Client] // is replaced by reconnect
	options atomic.Pointer[Options]
	tuning  tuning
	clock   atomic.Pointer[clock]
	health  health
	close   func() error // closes once

	ctx     context.Context // done when the broker is closed
	cancel  context.CancelFunc
	running sync.WaitGroup // all goroutines, and all calls that have entered
	gate    sync.RWMutex   // guards shut
	shut    bool           // nobody enters any more
	asking  chan struct{}  // holds one for each question that waits for its answers
	doubts  chan struct{}  // holds one if it is in doubt whether Redis takes writes
	trims   chan struct{}  // holds one if there may be something to give up
	logins  chan struct{}  // holds one if the connections are to be made anew

	// tailing guards what follows, and serialises deliver.
	tailing sync.Mutex
	at      sse.Position // up to where the record was followed
	life    string       // of that epoch
	asked   uint64       // number of the newest question that was handed over
	seen    int64        // time of the entry there, Unix in microseconds; 0 if it was not seen
	tails   map[*tail]struct{}
}

// Open connects to Redis and opens the record, which begins if there is none. The
// error says why it cannot, and matches [sse.ErrUnavailable] unless it is one of
// [Options.Check]. It takes some times [Options.Timeout] at most.
func Open(options Options) (*Broker, error) { return open(options, defaultTuning) }

// A tuning is what only tests change.
type tuning struct {
	window         time.Duration // for how long ids are remembered
	repeats, ended int           // how many ids and ended channels are
	// block is how long Redis holds back its answer while there is no entry.
	// Then the record is looked at, so that a connection that is dead
	// without an error, or a record that was lost, is noticed.
	block time.Duration
	// life is for how long a node counts as alive that says nothing.
	life time.Duration
}

var defaultTuning = tuning{window: sse.RepeatWindow, repeats: sse.MaxRepeats, ended: sse.MaxEnded, block: 5 * time.Second, life: NodeLife}

func open(options Options, tuning tuning) (*Broker, error) {
	options = options.withDefaults()
	keys, err := options.keys()
	if err != nil {
		return nil, err
	}
	connect, err := options.client()
	if err != nil {
		return nil, err
	}
	b := &Broker{
		keys: keys, node: sse.NewEpoch(), tuning: tuning,
		doubts: make(chan struct{}, 1), trims: make(chan struct{}, 1), logins: make(chan struct{}, 1),
		asking: make(chan struct{}, maxAsking),
		tails:  make(map[*tail]struct{}),
	}
	b.options.Store(&options)
	b.connect.Store(&connect)
	client, err := rueidis.NewClient(connect)
	if err != nil {
		return nil, fmt.Errorf("%w: connect: %w", sse.ErrUnavailable, b.reason(context.Background(), err))
	}
	b.client.Store(&client)
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.close = sync.OnceValue(b.shutDown)
	if err := b.begin(); err != nil {
		b.cancel()
		client.Close()
		return nil, err
	}
	b.running.Go(b.follow)
	b.running.Go(b.watch)
	b.running.Go(b.live)
	return b, nil
}

// begin looks at the server and the record.
func (b *Broker) begin() error {
	b.inspect()
	l, err := b.look(b.ctx, lookOnly)
	if err != nil {
		return fmt.Errorf("%w: open the record: %w", sse.ErrUnavailable, err)
	}
	b.at, b.life, b.asked = l.at(l.head), l.life, l.asks
	return nil
}

// inspect warns of a server that may forget parts of the record.
func (b *Broker) inspect() {
	ctx, cancel := b.within(b.ctx)
	defer cancel()
	client := *b.client.Load()
	info, err := client.Do(ctx, client.B().Info().Section("memory").Build()).ToString()
	if err != nil {
		return // what matters will fail as well
	}
	policy, limit := infoField(info, "maxmemory_policy"), infoField(info, "maxmemory")
	if policy != "noeviction" && limit != "0" && limit != "" {
		b.log().Warn("Redis may evict the record when its memory is full, which resets all subscribers; set maxmemory-policy noeviction",
			slog.String("maxmemory_policy", policy))
	}
}

func infoField(info, name string) string {
	for line := range strings.SplitSeq(info, "\r\n") {
		if value, found := strings.CutPrefix(line, name+":"); found {
			return value
		}
	}
	return ""
}

// SetOptions changes the settings of an open broker, whose record stays the one that it
// is. What the bounds do not keep is given up soon. Connections are made anew if others
// are needed, as for another password; until that works, those that there are go on.
func (b *Broker) SetOptions(options Options) {
	options = options.withDefaults()
	before := b.options.Swap(&options)
	signal(b.trims)
	if options.sameLogin(before) {
		return
	}
	if connect, err := options.client(); err == nil {
		b.connect.Store(&connect)
		signal(b.logins)
	}
}

func (b *Broker) log() *slog.Logger { return b.options.Load().Logger }

// signal wakes who waits for it, now or later.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // it is awake already
	}
}

// State implements [sse.Broker]. It asks Redis.
func (b *Broker) State(ctx context.Context) (sse.State, error) {
	leave, err := b.enter()
	if err != nil {
		return sse.State{}, err
	}
	defer leave()
	l, err := b.look(ctx, lookEnded)
	if err != nil {
		return sse.State{}, fmt.Errorf("%w: %w", sse.ErrUnavailable, err)
	}
	return sse.State{Oldest: l.at(l.oldest), Newest: l.at(l.head), Ended: l.ended}, nil
}

// Close implements [sse.Broker]. It waits for calls that are under way, which takes
// [Options.Timeout] at most if Redis does not answer. It never fails.
func (b *Broker) Close() error { return b.close() }

func (b *Broker) shutDown() error {
	b.gate.Lock()
	b.shut = true
	b.gate.Unlock()
	b.cancel()
	b.running.Wait()
	(*b.client.Load()).Close()
	return nil
}

// enter begins a call, for which Close waits until it leaves.
func (b *Broker) enter() (leave func(), err error) {
	b.gate.RLock()
	defer b.gate.RUnlock()
	if b.shut {
		return nil, sse.ErrClosed
	}
	b.running.Add(1)
	return b.running.Done, nil
}

// within bounds a call of Redis.
func (b *Broker) within(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, b.options.Load().Timeout, errSilent)
}

var errSilent = errors.New("redis does not answer")

// run runs a script in one round trip, or in two if Redis does not know it yet.
func (b *Broker) run(ctx context.Context, script *rueidis.Lua, keys, args []string) (rueidis.RedisResult, error) {
	ctx, cancel := b.within(ctx)
	defer cancel()
	r := script.Exec(ctx, *b.client.Load(), keys, args)
	return r, b.reason(ctx, r.Error())
}

// reason makes errors of Redis say what happened.
func (b *Broker) reason(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	late := errors.Is(context.Cause(ctx), errSilent)
	if ctx.Err() != nil && !late {
		return ctx.Err()
	}
	if timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](err); late || (ok && timeout.Timeout()) { // that of a ping, or while it connects
		return fmt.Errorf("%w within %s", errSilent, b.options.Load().Timeout)
	}
	return fmt.Errorf("redis: %w", err)
}

// look asks what the record is. It begins anew if it is lost.
func (b *Broker) look(ctx context.Context, besides string) (look, error) {
	return b.lookFrom(ctx, besides, sse.Position{}, 0)
}

// lookFrom is look for one who has seen the entry at a position, whose time is zero
// if it was not seen itself.
func (b *Broker) lookFrom(ctx context.Context, besides string, at sse.Position, seen int64) (look, error) {
	when := ""
	if seen != 0 {
		when = strconv.FormatInt(seen, 10)
	}
	args := append(b.settings(4), besides, at.Epoch, strconv.FormatUint(at.Seq, 10), when)
	r, err := b.run(ctx, lookScript, b.keys.all(), args)
	if err != nil {
		return look{}, err
	}
	l, err := parseLook(r)
	if err == nil {
		// If the answer took long, the server's clock seems to be behind, and deadlines are early.
		b.clock.Store(&clock{server: l.now, here: time.Now()})
	}
	return l, err
}

var _ sse.SharedBroker = (*Broker)(nil)
