package sse

import (
	"container/list"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// ErrConnection is returned to those who want a stream of a connection that is
// another user's, be it open or remembered.
var ErrConnection = errors.New("sse: the connection is another user's")

// maxAway is how many sessions of clients that are gone a hub keeps, of those that
// were changed and of those that were not. Beyond it the longest gone is
// forgotten: its client, should it come back, gets what its request asks for, and
// is told so by the channels in its first frame.
const maxAway = 10_000

// A session is what a connection gets, and who it is. It outlives the stream for
// a while if it was changed meanwhile, so that the client that comes back by
// itself gets back what it had. It is guarded by Hub.mu but for what never
// changes.
type session struct {
	connection, user, address string
	opened                    int64 // Unix time in nanoseconds
	keep                      time.Duration

	roster
	starting bool     // the stream is about to begin, and cannot be changed yet
	changed  *changed // nil if it is as it was asked for
	base     uint64   // Hub.changes when the first of the connection's sessions began
	number   uint64   // of the last change of what it gets
	serial   uint64   // the same for all sessions of a connection that follow one another

	stream *Subscriber // nil when the client is gone
	absent *absence    // nil while it is not
}

// changed is what is known of the changes of a session.
type changed struct {
	fills []fill // which the client is not known to have received
	count uint64 // of all changes
}

// An absence is how a session waits for its client to come back.
type absence struct {
	until int64         // when it is forgotten, in nanoseconds of Unix time
	place *list.Element // in Hub.away or Hub.parked
	size  int           // what it counts for in Hub.awaySize
}

// enroll gives the subscriber a session, which goes on from that of the same
// connection and user if there is one.
func (h *Hub) enroll(s *Subscriber, o *SubscribeOptions) error {
	before := h.sessions[o.Connection]
	if before != nil && before.over(time.Now()) {
		h.forgetSession(before)
		before = nil
	}
	if before != nil && before.user != "" && before.user != o.User {
		return ErrConnection // one that is nobody's belongs to whoever knows its id
	}
	h.serial++
	sess := &session{
		base: h.changes, number: h.changes,
		connection: strings.Clone(o.Connection), user: strings.Clone(o.User), address: strings.Clone(o.Address), serial: h.serial,
		opened: time.Now().UnixNano(), keep: o.Session, stream: s, starting: true,
		roster: roster{inside: untouched},
	}
	sess.add(cloneNames(o.Fixed))
	sess.fixed = int32(len(sess.named))
	goesOn := before != nil && before.user == o.User
	if goesOn {
		sess.serial = before.serial
	}
	if goesOn && before.changed != nil {
		sess.goOnFrom(before, o.May)
	} else {
		sess.add(cloneNames(o.Channels))
	}
	switch {
	case len(sess.named) == 0 && sess.changed == nil:
		return fmt.Errorf("%w: none was named", ErrChannel)
	case h.overtaken(sess, o.Asked):
		return ErrOvertaken
	}
	if before != nil {
		h.replace(before)
	}
	if sess.connection != "" {
		h.sessions[sess.connection] = sess
	}
	s.session, s.items = sess, &items{sess.named, cover(sess.named)}
	return nil
}

// goOnFrom takes over what the connection had, as far as it still may have it.
func (sess *session) goOnFrom(before *session, may func(string) bool) {
	// Also what stands for more than was withdrawn, or it would bring that back.
	withdrawn := newPatternSet(before.withdrawn)
	gone := func(name string) bool { return withdrawn.covers(name) || coversAny(name, before.withdrawn) }
	sess.named = slices.DeleteFunc(slices.Clone(sess.named), gone)
	sess.fixed = int32(len(sess.named))
	var kept []string
	for _, name := range before.named[before.fixed:] {
		if slices.Contains(before.given, name) || may == nil || may(name) {
			kept = append(kept, name)
		}
	}
	sess.add(kept)
	sess.inside = before.inside
	sess.changed = &changed{slices.Clone(before.changed.fills), before.changed.count}
	sess.base, sess.number = before.base, before.number
}

// replace ends what is left of a session that is replaced.
func (h *Hub) replace(before *session) {
	if before.stream != nil {
		before.stream.Close(CloseReplaced)
		return
	}
	h.forgetSession(before)
}

// over reports whether the time of a session whose client is gone is over.
func (sess *session) over(now time.Time) bool {
	return sess.absent != nil && now.UnixNano() > sess.absent.until
}

// dismiss keeps the session of a subscriber that has left, if it is to be kept.
func (h *Hub) dismiss(s *Subscriber) {
	sess := s.session
	if h.sessions[sess.connection] != sess {
		return // replaced, kicked, or nobody's
	}
	sess.stream, sess.starting = nil, false
	if sess.keep <= 0 {
		delete(h.sessions, sess.connection)
		return
	}
	sess.absent = &absence{until: time.Now().Add(sess.keep).UnixNano()}
	h.park(sess)
}

// maxAwaySize is how many bytes the sessions of clients that are gone may take.
const maxAwaySize = 64 << 20

// park puts a session among those whose clients are gone. Those that were not
// changed are by themselves, so that little is lost with them.
func (h *Hub) park(sess *session) {
	sess.absent.size = sess.bytes()
	h.awaySize += sess.absent.size
	sess.absent.place = h.absent(sess).PushBack(sess)
	for h.parked.Len() > maxAway || (h.awaySize > maxAwaySize && h.parked.Len() > 0) {
		h.forgetSession(h.parked.Front().Value.(*session))
	}
	for h.away.Len() > maxAway || (h.awaySize > maxAwaySize && h.away.Len() > 0) {
		h.forgetSession(h.away.Front().Value.(*session))
		h.stats.forgotten.Add(1)
	}
}

func (h *Hub) unpark(sess *session) {
	h.awaySize -= sess.absent.size
	h.absent(sess).Remove(sess.absent.place)
}

// absent returns the sessions of clients that are gone among which this one is.
func (h *Hub) absent(sess *session) *list.List {
	if sess.changed != nil {
		return &h.away
	}
	return &h.parked
}

// bytes is about what a session takes.
func (sess *session) bytes() int {
	n := 512 + len(sess.connection) + len(sess.user) + len(sess.address)
	lists := [][]string{sess.named, sess.given, sess.withdrawn}
	for _, f := range sess.fills() {
		lists = append(lists, f.items, f.except)
	}
	for _, list := range lists {
		for _, name := range list {
			n += 16 + len(name)
		}
	}
	return n
}

func (h *Hub) forgetSession(sess *session) {
	h.unpark(sess)
	delete(h.sessions, sess.connection)
}

// forgetAway forgets the sessions whose time is over.
func (h *Hub) forgetAway(now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, gone := range []*list.List{&h.away, &h.parked} {
		for e := gone.Front(); e != nil; {
			sess := e.Value.(*session)
			e = e.Next()
			if sess.over(now) {
				h.forgetSession(sess)
			}
		}
	}
}

// fills returns what was filled in that the client is not known to have received.
func (sess *session) fills() []fill {
	if sess.changed == nil {
		return nil
	}
	return sess.changed.fills
}

// changes returns how often the session was changed.
func (sess *session) changes() uint64 {
	if sess.changed == nil {
		return 0
	}
	return sess.changed.count
}
