package sse

import (
	"math"
	"time"
)

// An idle stream is to take little memory. What few streams need, or none for long,
// is therefore not in the Subscriber but behind a pointer.

// An aside is what few streams need, and those not for long. It is the engine's
// alone.
type aside struct {
	opening  opening
	answered bool // an engine has begun to answer
	changes  []*change
	// backfills are sent before it goes on.
	backfills []*backfill
	filled    fillCursor          // where the last of them ended
	floors    map[*channel]uint64 // channels that continue later than position
	ends      []Ended             // channels of whose end the client is to be told

	// Of a backfill only: what it leaves out, where it ends, and whose it is.
	except []string
	until  uint64
	parent *Subscriber
}

// nothingAside is the aside of all streams that need none. It is never written to.
var nothingAside = new(aside)

// setAside makes the aside one that can be written to.
func (s *Subscriber) setAside() {
	if s.aside == nothingAside {
		s.aside = new(aside)
	}
}

// tidy drops the aside if nothing of it is needed any more. An idle stream is to
// take little memory.
func (s *Subscriber) tidy() {
	a := s.aside
	if a != nothingAside && len(a.changes)+len(a.backfills)+len(a.floors)+len(a.ends) == 0 &&
		a.parent == nil && (a.filled.number == 0 || a.filled.through != s.position) {
		s.aside = nothingAside
	}
}

// A later is what is to happen to a stream. It is guarded by Subscriber.mu.
type later struct {
	queued  []*change // not seen by the engine yet
	waiting int       // changes that were queued and not made
	ended   uint64    // the seq at which one of the channels ended last
	expires time.Time // when the stream ends; zero is never
	expiry  *time.Timer
	closing CloseReason
	retry   time.Duration // what the reconnection time is to be; zero is that it stays
}

// why returns why the stream is to end, empty if it is not. It may be called on nil.
func (l *later) why() CloseReason {
	if l == nil {
		return ""
	}
	return l.closing
}

// isEmpty reports whether there is nothing of it.
func (l *later) isEmpty() bool {
	return len(l.queued)+l.waiting == 0 && l.ended == 0 && l.expiry == nil && l.closing == "" && l.retry == 0
}

// newestEnd returns the seq at which one of the channels ended last. It may be called
// on nil.
func (l *later) newestEnd() uint64 {
	if l == nil {
		return 0
	}
	return l.ended
}

// planned returns what is to happen to the stream, to add to it.
func (s *Subscriber) planned() *later {
	if s.later == nil {
		s.later = new(later)
	}
	return s.later
}

// expireAt makes the stream end at a time, unless it is to end before that. Zero
// is never.
func (s *Subscriber) expireAt(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case at.IsZero() || (s.later != nil && !s.later.expires.IsZero() && s.later.expires.Before(at)):
		return
	case s.later != nil && s.later.expiry != nil:
		s.later.expiry.Stop()
	}
	later := s.planned()
	later.expires = at
	later.expiry = time.AfterFunc(time.Until(at), func() { s.Close(CloseExpired) })
}

func (s *Subscriber) stopExpiry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.later != nil && s.later.expiry != nil {
		s.later.expiry.Stop()
	}
}

// millis are milliseconds, up to 24 days.
type millis int32

func toMillis(d time.Duration) millis {
	return millis(min(d.Milliseconds(), math.MaxInt32))
}

func (m millis) duration() time.Duration { return time.Duration(m) * time.Millisecond }
