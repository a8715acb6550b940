package sse

import (
	"context"
	"slices"
	"sync"
	"time"
)

// SubscribeOptions say what a subscriber wants.
type SubscribeOptions struct {
	// Connection identifies the stream to its client and to operators. It must be
	// valid UTF-8 and should be unguessable. A stream of the same connection
	// takes the place of the one before. Without one, the stream cannot be found.
	Connection string
	// User is who listens. Only the same user can take a connection over, or
	// change it. Empty is nobody in particular.
	User string
	// Address is where the client is, for operators.
	Address string
	// Channels are names and prefix patterns, at least one together with
	// Fixed unless a session brings others back. They are not modified and may be reused.
	Channels []string
	// Fixed are more of them, which the client cannot unsubscribe from.
	Fixed []string
	// Session is for how long a connection outlives its stream. Meanwhile it
	// can be changed, and the next stream of the same connection and user gets
	// what was changed by [Hub.Change] instead of Channels. Zero is not at all.
	Session time.Duration
	// May says of what a session brings back whether the client may still
	// have it. Nil is all. It is called with locks held, and must not block.
	May func(channel string) bool
	// Asked is when the client asked, before what allows it was looked at. If
	// something has been taken away from it since by [Hub.Kick] or [Hub.AssignAll],
	// it is not let in. Zero is that nothing can have been.
	Asked time.Time
	// Expires is when the client may listen no longer: the stream ends, and
	// nothing that is published later is sent. Zero is never.
	Expires time.Time
	// Start is where to begin. The zero value begins with the next event.
	Start Start
	// ReplayLimit is how many events a resume may replay; a client that
	// missed more gets a reset. Zero is 10,000, negative is no limit. A
	// stream that falls further behind than memory reaches is treated as
	// one that comes back.
	ReplayLimit int
	// Retry is the reconnection time told to the client, to which up to
	// half of it is added at random. Zero is three seconds.
	Retry time.Duration
	// Tuning is the one with which the stream will be handed to its engine. It
	// need not be said here, but for changes that are for the streams of one
	// ([Change.Tuning]).
	Tuning *Tuning
}

// Defaults of [SubscribeOptions].
const (
	DefaultReplayLimit = 10_000
	DefaultRetry       = 3 * time.Second
)

// Resume says what became of the position that a subscriber presented.
type Resume string

// The ways in which a stream can begin.
const (
	ResumeFresh    Resume = "fresh"    // none was presented
	ResumeComplete Resume = "complete" // every missed event follows
	ResumeReset    Resume = "reset"    // some are gone
)

// A Reset names a channel or prefix pattern whose events are missing.
type Reset struct {
	Channel string      `json:"channel"`
	Reason  ResetReason `json:"reason"`
}

// maxDirty bounds how many channels a subscriber remembers to have news.
// Beyond it looks for them.
const maxDirty = 32

// A Subscriber is one stream: a set of channels, and the position up to which
// it has been given their events. It is created by [Hub.Subscribe] and must be
// handed to one engine, such as [Subscriber.Stream], or given back by
// [Subscriber.Leave].
type Subscriber struct {
	hub     *Hub
	session *session
	retry   millis
	// replayLimit is how many events may be missed and replayed.
	replayLimit int32

	// These are the engine's alone, and never nil.
	*items
	*aside

	// tuning has the settings of the stream. The engine sets it before it
	// attaches and pulls, if it has not been from the beginning; nil has the
	// defaults.
	tuning *Tuning

	// Position state, the engine's alone.
	position uint64
	opened   uint64     // the head when it began
	work     []*channel // may hold events after position
	told     uint64     // up to which seq ends were looked for
	narrowed bool       // except, or a change, left out some of what may be read
	behind   bool       // memory does not have what comes after position
	checked  bool       // the record has it, and not more than one replay may hold
	untold   bool       // the client does not know retry yet
	earliest bool       // is to begin with the earliest that is kept
	over     bool       // all channels have ended
	pending  bool       // woken, and has not looked since; guarded by mu
	lost     bool       // more had news than dirty holds; guarded by mu

	place       int32        // in Hub.subscribers, negative if it is not; guarded by Hub.mu
	counted     uint32       // index.counts when it was last counted; guarded by Hub.mu
	memberships []membership // guarded by Hub.mu

	mu    sync.Mutex // guards what follows
	waker waker
	dirty []*channel // told to have news since the last look
	later *later     // nil if there is nothing of it
}

// items are what a stream gets. They are never modified, and many streams may have
// the same.
type items struct {
	named []string // as it was asked for
	cover []string // the fewest that stand for the same
}

// An opening is what the first frame of a stream tells.
type opening struct {
	resume Resume
	resets []Reset
}

// Subscribe makes a subscriber, which from now on misses nothing of its
// channels. It waits for a hub that is starting as long as the context lets it, and ten
// seconds at most.
//
// Errors: one that matches [ErrChannel] if a name or pattern is malformed;
// [ErrConnection] if the connection is another user's; [ErrOvertaken]; [ErrDraining]; [ErrClosed]; [ErrEnded] if all channels have ended and the
// subscriber missed nothing of them; one of the broker if it has to be asked
// for what was missed, and cannot answer; one that matches [ErrUnavailable] if the
// subscriber has had more from another hub of the same record than this one has; the
// context's.
func (h *Hub) Subscribe(ctx context.Context, options SubscribeOptions) (*Subscriber, error) {
	if err := validatePatterns(options.Channels, options.Fixed); err != nil {
		return nil, err
	}
	if err := h.waitReady(ctx); err != nil {
		return nil, err
	}
	if err := h.fetch(ctx, &options); err != nil {
		return nil, err
	}
	if err := h.reach(ctx, options.Start); err != nil {
		return nil, err
	}
	s := &Subscriber{
		place:       -1,
		aside:       new(aside),
		hub:         h,
		tuning:      options.Tuning,
		retry:       toMillis(jitter(options.Retry, DefaultRetry)),
		replayLimit: replayLimit(options.ReplayLimit),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.draining {
		return nil, ErrDraining
	}
	if err := h.enroll(s, &options); err != nil {
		return nil, err
	}
	s.place = int32(len(h.subscribers))
	h.subscribers = append(h.subscribers, s)
	h.enter(s, s.cover, 0)
	if len(s.named) == 1 {
		s.items = s.memberships[0].topic.alone()
		s.session.named = s.named
	}
	if err := h.beginAgain(ctx, s, options.Start); err != nil {
		h.leave(s)
		return nil, err
	}
	s.session.starting = false
	s.expireAt(options.Expires)
	return s, nil
}

func validatePatterns(lists ...[]string) error {
	for _, name := range slices.Concat(lists...) {
		if err := ValidatePattern(name); err != nil {
			return err
		}
	}
	return nil
}

// Leave takes the subscriber out of its hub. It may be called again.
func (s *Subscriber) Leave() {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	s.hub.leave(s)
}

func (h *Hub) leave(s *Subscriber) {
	if s.place < 0 {
		return
	}
	last := h.subscribers[len(h.subscribers)-1]
	h.subscribers[s.place], last.place = last, s.place
	h.subscribers[len(h.subscribers)-1] = nil
	h.subscribers = h.subscribers[:len(h.subscribers)-1]
	s.place = -1
	h.exit(s.memberships)
	s.memberships = nil
	s.stopExpiry()
	h.dismiss(s)
}

// Connection returns the stream's identity.
func (s *Subscriber) Connection() string { return s.session.connection }

// Channels returns what the stream gets now. The slice must not be modified.
func (s *Subscriber) Channels() []string {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.session.named
}

// Resume returns what became of the position that was presented. It is known until
// the subscriber is handed to an engine.
func (s *Subscriber) Resume() Resume { return s.opening.resume }

// Close tells the stream to end for a reason, which is sent to the client
// unless it is [CloseClient]. It does not wait. Only the first reason counts.
func (s *Subscriber) Close(reason CloseReason) {
	s.mu.Lock()
	later := s.planned()
	if later.closing != "" {
		s.mu.Unlock()
		return
	}
	later.closing = reason
	w := s.waker
	s.mu.Unlock()
	if w != nil {
		w.wake(1)
		w.interrupt()
	}
}

// SetRetry changes the reconnection time, which is drawn as at first. The stream takes
// it on when it next has something to do, or by [Subscriber.Retune]; the client is told
// with the next keepalive after that, or with the last frame if that comes before.
func (s *Subscriber) SetRetry(retry time.Duration) {
	s.mu.Lock()
	s.planned().retry = jitter(retry, DefaultRetry)
	s.mu.Unlock()
}

// Opened returns when the stream began.
func (s *Subscriber) Opened() time.Time { return time.Unix(0, s.session.opened) }

// User returns who listens.
func (s *Subscriber) User() string { return s.session.user }

// Address returns where the client is.
func (s *Subscriber) Address() string { return s.session.address }

// Roster returns what [Subscriber.Channels] does, and what the connection was given
// by [Hub.Assign]. The slices must not be modified.
func (s *Subscriber) Roster() (channels, assigned []string) {
	s.hub.mu.Lock()
	defer s.hub.mu.Unlock()
	return s.session.named, s.session.given
}

// closed returns why the stream is to end, empty if it is not.
func (s *Subscriber) closed() CloseReason {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.later.why()
}

// mark tells the subscriber that the channel has something new, and wakes its
// engine unless it was woken before and has not looked since. The crowd is how many
// are told.
func (s *Subscriber) mark(ch *channel, crowd int) {
	s.mu.Lock()
	wake := !s.pending
	s.pending = true
	if !s.lost && !slices.Contains(s.dirty, ch) {
		if len(s.dirty) < maxDirty {
			s.dirty = append(s.dirty, ch)
		} else {
			s.dirty, s.lost = s.dirty[:0], true
		}
	}
	w := s.waker
	s.mu.Unlock()
	if wake && w != nil {
		w.wake(crowd)
	}
}

// after returns the seq behind which the subscriber continues on a channel.
func (s *Subscriber) after(ch *channel) uint64 {
	return max(s.position, s.floors[ch])
}

// advance moves the position.
func (s *Subscriber) advance(seq uint64) {
	s.position = seq
	for ch, floor := range s.floors {
		if floor <= seq {
			delete(s.floors, ch)
		}
	}
}

// skip makes the subscriber continue on a channel behind a later seq.
func (s *Subscriber) skip(ch *channel, seq uint64) {
	if s.setAside(); s.floors == nil {
		s.floors = make(map[*channel]uint64)
	}
	s.floors[ch] = seq
}
