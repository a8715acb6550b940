package sse

import (
	"math/rand/v2"
	"net/http"
	"sync/atomic"
	"time"
)

// An engine writes to streams. Subscribers do not know which one writes to
// them: an engine attaches a waker, and pulls batches whenever it was woken
// until one is empty. The stream engine, for every HTTP version and system, is in
// deliver_stream.go; the direct engine, for HTTP/1 on Linux, in deliver_direct_linux.go.

// A waker is how a hub tells an engine about one of its subscribers. Its
// methods may be called with locks held, and must not block.
type waker interface {
	// wake tells that there may be something to pull. The crowd is how many
	// subscribers are told at once.
	wake(crowd int)
	// interrupt tells that the stream is to end even if its client does
	// not read.
	interrupt()
}

// attach makes an engine responsible for the subscriber. The engine pulls once
// without having been woken.
func (s *Subscriber) attach(w waker) {
	s.mu.Lock()
	s.waker = w
	closing := s.later.why()
	s.mu.Unlock()
	if closing != "" && w != nil {
		w.interrupt()
	}
}

// An Owner is told of a stream of the direct engine, which outlives its handler.
type Owner interface {
	// Ended is called once, when the stream has ended, by a goroutine of the
	// hub's that calls it for one stream after the other. It should not take
	// long: [Hub.Close] waits for it.
	Ended(End)
}

// StreamOptions are the settings of one stream.
type StreamOptions struct {
	// Keepalive is the longest silence. Up to a quarter of it is taken off
	// at random, so that streams do not fall into step. Zero is 15 seconds,
	// negative is no keepalives.
	Keepalive time.Duration
	// MaxAge ends the stream when it is that old, less up to a tenth at
	// random; its client comes back at once. Zero or negative is no limit.
	MaxAge time.Duration
	// Lag is how many bytes of events the stream may be behind: of those that
	// were published on its channels since it was opened, what it has not been
	// given. What it replays when it opens does not count, and an event on
	// several of its channels counts for each. Zero or negative is no limit:
	// then it may be as far behind as events are kept.
	Lag int64
	// Slow says what becomes of a stream that is further behind. The zero
	// value is [SlowReset].
	Slow Slow
}

// DefaultKeepalive is the longest silence unless it is configured.
const DefaultKeepalive = 15 * time.Second

// A Tuning is the settings of streams that can be changed while they are open.
// It may be shared by many streams, and used concurrently. The zero value has the
// defaults, and so has nil.
type Tuning struct {
	// Name tells the streams of one tuning from others, see [Change.Tuning]. It
	// does not change while streams have the tuning.
	Name    string
	options atomic.Pointer[StreamOptions]
}

// NewTuning returns one with those settings.
func NewTuning(options StreamOptions) *Tuning {
	t := new(Tuning)
	t.Set(options)
	return t
}

// Set changes the settings of all streams that have the tuning. Each takes them on
// when it next has something to do, or by [Subscriber.Retune].
func (t *Tuning) Set(options StreamOptions) { t.options.Store(&options) }

// Load returns the settings.
func (t *Tuning) Load() StreamOptions {
	if t == nil {
		return StreamOptions{}
	}
	if options := t.options.Load(); options != nil {
		return *options
	}
	return StreamOptions{}
}

// tune gives the subscriber its tuning, if it has not had it from the beginning: then
// others may be looking at it.
func (s *Subscriber) tune(t *Tuning) {
	if s.tuning != t {
		s.tuning = t
	}
}

// Retune has the subscriber's stream look at its settings now. The crowd is how many
// streams are told at once, so that many do not stand in the way of the events of
// few. It does not wait.
func (s *Subscriber) Retune(crowd int) {
	s.mu.Lock()
	w := s.waker
	s.mu.Unlock()
	if w != nil {
		w.wake(crowd)
	}
}

// SetHeader sets the header of an answer that is an event stream: the media
// type, and what keeps caches from keeping it, compressors (Caddy's encode
// among them) from holding it back, and nginx from buffering it.
func SetHeader(h http.Header) {
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-cache, no-transform")
	h.Set("X-Accel-Buffering", "no")
}

// A client that was turned away is to come back in 5 to 15 seconds.
const (
	busyRetry  = 5 * time.Second
	busyJitter = 10 * time.Second
)

// CountRefusal counts a client that was turned away, as a stream closed by the
// reason [CloseBusy].
func (h *Hub) CountRefusal() { h.stats.closed.add(closeReasons, CloseBusy) }

// Refuse answers a request for a stream with one that ends at once and asks the
// client to come back in 5 to 15 seconds. It is sent with status 200 because an
// EventSource gives up for good on any other (WHATWG HTML, section 9.2.2).
func Refuse(w http.ResponseWriter) error {
	SetHeader(w.Header())
	w.WriteHeader(http.StatusOK)
	_, err := w.Write(closeFrame(CloseBusy, busyRetry+rand.N(busyJitter).Truncate(time.Millisecond)))
	return err
}
