package sse

import (
	"cmp"
	"container/list"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options are a hub's settings. The zero value is ready for use.
type Options struct {
	// HistoryCount is how many events a channel keeps for replay. Zero or
	// less is 1000.
	HistoryCount int
	// HistoryAge is for how long events are kept for replay. Zero or less
	// is one hour.
	HistoryAge time.Duration
	// Memory bounds the bytes of all kept events together. When it is
	// exceeded the oldest go, whatever their channel, but never the newest
	// event. Zero or less is 256 MiB.
	Memory int64
	// Logger is told what an operator should know. Nil is silent.
	Logger *slog.Logger
}

// Defaults of [Options].
const (
	DefaultHistoryCount = 1000
	DefaultHistoryAge   = time.Hour
	DefaultMemory       = 256 << 20
)

func (o Options) withDefaults() Options {
	o.HistoryCount = cmp.Or(max(o.HistoryCount, 0), DefaultHistoryCount)
	o.HistoryAge = cmp.Or(max(o.HistoryAge, 0), DefaultHistoryAge)
	o.Memory = cmp.Or(max(o.Memory, 0), DefaultMemory)
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o
}

// ErrDraining is returned to those who want to subscribe to a hub that is
// about to stop.
var ErrDraining = errors.New("sse: the hub is draining")

// ErrEnded is returned to those who want to subscribe to channels that have all
// ended, and of which they missed nothing.
var ErrEnded = errors.New("sse: all channels have ended")

var errStarting = errors.New("sse: the hub is starting")

// A Hub takes events from publishers, has its broker order them, keeps the
// recent ones and delivers them to its subscribers. Create it with [NewHub].
//
// Locks are taken in this order: the broker's own, Hub.mu, then history.mu or
// Subscriber.mu, which are never held together.
type Hub struct {
	broker  Broker
	epoch   string
	stats   counters
	stop    context.CancelFunc
	running sync.WaitGroup
	ready   chan struct{} // closed when the tail is attached for the first time
	lost    chan struct{} // closed when the record can be followed no more
	// questions wait for their answers; nil unless the broker is shared.
	questions chan posed
	reads     chan struct{} // holds a token for each who reads the record
	closed    context.Context

	// Events up to head are in their histories; of those up to settled
	// every subscriber has been told as well. Both are written under mu.
	head    atomic.Uint64
	settled atomic.Uint64

	mu          sync.Mutex // guards what follows
	options     Options    // with defaults
	index       index
	recent      list.List // *channel that ever had an event, the newest event first
	segments    list.List // *segment, that with the oldest last event first
	idle        list.List // *channel without kept events and subscribers, the longest idle first
	size        int64     // of all segments, and of all channels that had events
	idleSize    int64     // the part of size that idle channels have
	forgotten   uint64    // newest event of the channels of which nothing is known any more
	ended       ends
	subscribers []*Subscriber
	sessions    map[string]*session // by connection
	away        list.List           // *session that was changed and whose client is gone, the longest gone first
	parked      list.List           // those that were not changed
	awaySize    int                 // of both, in bytes
	serial      uint64              // of the last session
	changes     uint64              // number of the last change
	barriers    []barrier           // the oldest first
	draining    bool
	direct      *directEngine // nil before its first stream
	tailError   error         // why the record cannot be followed now
	frame       []byte
}

// NewHub starts a hub on a broker. The caller closes the hub first, then the
// broker. The context bounds the start alone.
func NewHub(ctx context.Context, broker Broker, options Options) (*Hub, error) {
	state, err := broker.State(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the state of the record: %w", err)
	}
	h := &Hub{
		broker:   broker,
		epoch:    state.Newest.Epoch,
		ready:    make(chan struct{}),
		lost:     make(chan struct{}),
		options:  options.withDefaults(),
		sessions: make(map[string]*session),
		changes:  firstChange(),
		serial:   firstChange(),
		reads:    make(chan struct{}, maxReads),
	}
	h.startAt(state.warmStart().Seq, state.Ended)
	h.closed, h.stop = context.WithCancel(context.WithoutCancel(ctx))
	h.running.Go(h.tail)
	h.running.Go(h.sweep)
	if shared, ok := broker.(SharedBroker); ok {
		h.questions = make(chan posed, maxQuestions)
		h.running.Go(func() { h.answerAll(h.closed, shared) })
	}
	return h, nil
}

// firstChange returns where the numbers of changes begin. Clients may still have one
// from before a restart, which must not be taken for one of now.
var firstChange = func() uint64 { return rand.Uint64N(1 << 32) }

// SetOptions changes the settings of a live hub. Events that the new settings
// do not keep are no longer replayed; their memory is freed within a minute.
func (h *Hub) SetOptions(options Options) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.options = options.withDefaults()
	for _, ch := range h.index.channels {
		h.trim(ch, time.Now())
	}
	h.evict()
}

// Publish hands events to the broker, all or none, and returns a receipt for
// each. It may retain the events, which must not be modified afterwards.
//
// Errors: a [*FieldError] if an event is malformed; an [*EndedError] if one is
// for a channel that has ended; one that matches [ErrUnavailable] if the broker
// cannot take them now; [ErrClosed]; the context's. Whenever the error is not
// nil, nothing was published.
func (h *Hub) Publish(ctx context.Context, events ...Event) ([]Receipt, error) {
	for i := range events {
		if err := events[i].Validate(); err != nil {
			if field, ok := errors.AsType[*FieldError](err); ok {
				field.Index = i
			}
			return nil, err
		}
	}
	if err := h.waitReady(ctx); err != nil {
		return nil, err
	}
	positions, err := h.broker.Publish(ctx, events)
	if err != nil {
		return nil, fmt.Errorf("publish to the broker: %w", err)
	}
	receipts := make([]Receipt, len(events))
	for i, at := range positions {
		receipts[i] = Receipt{Position: at, Subscribers: h.count(events[i].Channels)}
	}
	return receipts, nil
}

// count takes the lock for one event: others must not wait for a whole batch.
func (h *Hub) count(channels []string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.index.count(channels)
}

// A Receipt tells a publisher what became of an event.
type Receipt struct {
	// Position is the event's place in the record and its id.
	Position Position
	// Subscribers is how many streams of this hub listen to the event's
	// channels, each counted once, just after it was published.
	Subscribers int
}

// startWait is how long those who come wait for a hub that starts.
const startWait = 10 * time.Second

func (h *Hub) waitReady(ctx context.Context) error {
	select {
	case <-h.ready: // also for one whose time is over: else some would go through, and some not
	default:
		late := time.NewTimer(startWait)
		defer late.Stop()
		select {
		case <-h.ready:
		case <-late.C:
			return fmt.Errorf("%w: %w", ErrUnavailable, errStarting)
		case <-ctx.Done():
			return ctx.Err()
		case <-h.closed.Done():
		}
	}
	if h.closed.Err() != nil {
		return ErrClosed
	}
	return nil
}

// Health returns nil while the hub can publish and deliver, else the reason
// why it cannot.
func (h *Hub) Health() error {
	broken := h.broker.Health() // before the hub's lock is taken
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.closed.Err() != nil:
		return ErrClosed
	case h.draining:
		return ErrDraining
	case h.tailError != nil:
		return fmt.Errorf("follow the record: %w", h.tailError)
	case !h.attachedOnce():
		return errStarting
	case broken != nil:
		return fmt.Errorf("the broker: %w", broken)
	}
	return nil
}

// drainStep is the pause between two streams that are closed. A drain takes
// this long for each stream, and not longer than its caller allows.
const drainStep = 2 * time.Millisecond

// Drain refuses new subscribers and ends the streams one by one, spread over
// at most the given time, so that their clients do not come back as one crowd.
// It returns when the last one has been told to end, or ctx is done.
func (h *Hub) Drain(ctx context.Context, over time.Duration) {
	h.mu.Lock()
	h.draining = true
	streams := slices.Clone(h.subscribers)
	h.mu.Unlock()

	start := time.Now()
	step := min(drainStep, over/time.Duration(max(len(streams), 1)))
	for i, s := range streams {
		s.Close(CloseDrain)
		ahead := time.Duration(i+1)*step - time.Since(start)
		if ahead < time.Millisecond || ctx.Err() != nil {
			continue // a timer would be too coarse
		}
		select {
		case <-time.After(ahead):
		case <-ctx.Done():
		}
	}
}

// Close ends all streams at once, with the reason "drain", and returns when the hub's
// goroutines have ended, and with them the streams of [Subscriber.Direct], which
// takes up to a second if their clients do not read. The handlers of the others
// return soon after. It may be called again.
func (h *Hub) Close() {
	h.Drain(context.Background(), 0)
	h.stop()
	h.running.Wait()
}
