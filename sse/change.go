package sse

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Errors of a change.
var (
	// ErrNoConnection is returned where no such connection is known, be it
	// open or remembered.
	ErrNoConnection = errors.New("sse: no such connection")
	// ErrChange is matched by the errors of changes that contradict themselves
	// or what the connection has.
	ErrChange = errors.New("sse: the change cannot be made")
	// ErrWithdrawn is matched by the errors of clients that ask for what was
	// taken away from them by [Hub.Assign].
	ErrWithdrawn = errors.New("sse: the channel was withdrawn from this connection")
	// ErrChanging is returned while the stream has too many changes before it.
	ErrChanging = errors.New("sse: too many changes wait for the stream")
)

// How many changes may wait until their stream comes to them: of those that its
// client asks for, and of all. A client that does not read must not be able to
// prevent that something is taken away from it.
const (
	maxChanges     = 16
	maxAssignments = 1024
)

// maxRoster is how many names and patterns those who run the hub may give to a
// connection, and take away from it.
const maxRoster = 1000

// A Change says what a connection gets in addition, and no longer.
type Change struct {
	// Subscribe and Unsubscribe are names and prefix patterns. What the
	// connection has, or has not, is left as it is. They are not modified.
	Subscribe, Unsubscribe []string
	// Session is what [Hub.Knows] has returned of the connection, if that was
	// asked: the change is not made if the connection has been kicked since.
	Session uint64
	// Asked is that of [SubscribeOptions].
	Asked time.Time `json:"-"` // other hubs have other clocks
	// Start is where in the record the channels begin that are added. The
	// zero value is the next event. What is replayed has its own ids, which lie
	// behind those before; each is followed by an id alone that [ParseStart]
	// reads, so that a client that comes back with it gets the rest.
	Start Start
	// MaxChannels bounds what the connection has afterwards. Zero is no bound.
	MaxChannels int
	// ReplayLimit is that of [SubscribeOptions], for the channels that are
	// added.
	ReplayLimit int
	// Expires is when the client may no longer listen to what is added: an
	// open stream ends then, if it does not before. Zero is never.
	Expires time.Time
	// Tuning is which streams the change is for, if it is not empty: those of a
	// [Tuning] of that name. A connection with another open stream is as good as
	// unknown.
	Tuning string
}

// own returns the change with copies of what may be a part of a whole request.
func (c Change) own() Change {
	c.Subscribe, c.Unsubscribe = cloneNames(c.Subscribe), cloneNames(c.Unsubscribe)
	c.Start.after.Epoch = strings.Clone(c.Start.after.Epoch)
	if fill := c.Start.fill; fill.number > 0 {
		c.Start = After(Position{c.Start.after.Epoch, fill.through}) // up to there the client has everything
	}
	return c
}

// Change changes what a connection of that user gets, as its client asks, and
// returns all that it gets then; the slice must not be modified. When it
// returns, what was published on a channel that was taken away and has not been
// sent will not be, and all that is published on one that was added will be. The
// stream is told by `hub:channels`.
//
// If the client is gone for the moment, its next stream gets what was changed.
//
// Errors: [ErrNoConnection], also if it is another user's or tuning's; one that matches
// [ErrChannel], [ErrChange], [ErrWithdrawn]; [ErrChanging]; [ErrOvertaken]; one of the broker if
// it has to be asked for what was missed, and cannot answer; the context's. The
// connection is then as it was.
func (h *Hub) Change(ctx context.Context, connection, user string, c Change) ([]string, error) {
	if n := len(c.Subscribe) + len(c.Unsubscribe); c.MaxChannels > 0 && n > 2*c.MaxChannels {
		return nil, fmt.Errorf("%w: it names %d channels, and a stream can have %d channels at most", ErrChange, n, c.MaxChannels)
	}
	if err := validatePatterns(c.Subscribe, c.Unsubscribe); err != nil {
		return nil, err
	}
	if h.keptOut(connection, user, &c) {
		return nil, ErrOvertaken
	}
	a, err := h.askOwner(ctx, &question{Change: &changeQuestion{sessionQuestion{connection, user}, c.own()}})
	return a.Channels, err
}

// keptOut reports whether a change is kept out that was asked for before something was
// taken away. Every hub has the same barriers, and this one had the request.
func (h *Hub) keptOut(connection, user string, c *Change) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.overtaken(&session{connection: connection, user: user, roster: roster{named: c.Subscribe}}, c.Asked)
}

func (h *Hub) changeOwn(ctx context.Context, connection, user string, c Change) ([]string, error) {
	channels, err := h.change(ctx, connection, c, maxChanges, func(sess *session, c Change) (roster, error) {
		if sess.user != user || (c.Session != 0 && c.Session != sess.serial) || !sess.tunedBy(c.Tuning) {
			return roster{}, ErrNoConnection
		}
		next, err := sess.changedByClient(c)
		if err == nil && h.overtaken(&session{connection: sess.connection, user: sess.user, roster: next}, c.Asked) {
			err = ErrOvertaken
		}
		return next, err
	})
	if err == nil {
		err = h.markChanged(ctx, connection)
	}
	return channels, err
}

// tunedBy reports whether a change for the streams of that tuning is for this one:
// not if another one is open.
func (sess *session) tunedBy(name string) bool {
	return name == "" || sess.stream == nil || (sess.stream.tuning != nil && sess.stream.tuning.Name == name)
}

// Assign is Change on behalf of those who run the hub. It may take away what the
// client cannot do without itself; a pattern takes away all that it stands for; and
// what it takes away the client cannot ask for again for as long as its connection
// is known. What it adds is not subject to [SubscribeOptions.May].
func (h *Hub) Assign(ctx context.Context, connection string, c Change) ([]string, error) {
	if connection == "" {
		return nil, ErrNoConnection
	}
	if err := validatePatterns(c.Subscribe, c.Unsubscribe); err != nil {
		return nil, err
	}
	a, err := h.askOwner(ctx, &question{Assign: &assignQuestion{Selection{Connection: connection}, c.own()}})
	return a.Channels, err
}

func (h *Hub) assignTo(ctx context.Context, sel Selection, c Change) ([]string, error) {
	if len(c.Unsubscribe) > 0 {
		h.mu.Lock()
		h.raise(sel)
		h.mu.Unlock()
	}
	return h.assign(ctx, sel.Connection, c)
}

func (h *Hub) assign(ctx context.Context, connection string, c Change) ([]string, error) {
	if n := len(c.Subscribe) + len(c.Unsubscribe); n > maxRoster {
		return nil, fmt.Errorf("%w: it names %d channels, and %d at most are possible", ErrChange, n, maxRoster)
	}
	return h.change(ctx, connection, c, maxAssignments, func(sess *session, c Change) (roster, error) {
		return sess.changedFromInside(c)
	})
}

func (h *Hub) change(ctx context.Context, connection string, c Change, mostWaiting int, decide func(*session, Change) (roster, error)) ([]string, error) {
	if err := validatePatterns(c.Subscribe, c.Unsubscribe); err != nil {
		return nil, err
	}
	if err := h.waitReady(ctx); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	// What has to be filled in may have to be asked of the record, without the
	// lock. If the connection was changed meanwhile, it is another question.
	for range 3 {
		sess := h.sessions[connection]
		if sess == nil || sess.over(time.Now()) {
			return nil, ErrNoConnection
		}
		next, err := decide(sess, c)
		if err != nil {
			return nil, err
		}
		if sess.starting || (sess.stream != nil && sess.stream.waits(mostWaiting)) {
			return nil, ErrChanging
		}
		count, stream := sess.changes(), sess.stream
		filling, err := h.fillFor(ctx, sess, c)
		if err != nil {
			return nil, err
		}
		current := h.sessions[connection] == sess && sess.changes() == count && sess.stream == stream
		if current {
			h.commit(sess, next, c, filling)
		}
		h.exitBackfill(filling)
		if current {
			return sess.named, nil
		}
	}
	return nil, ErrChanging
}

// fillFor makes the backfill of what a change adds to a stream that is open.
func (h *Hub) fillFor(ctx context.Context, sess *session, c Change) (*backfill, error) {
	if sess.stream == nil {
		return nil, nil
	}
	r := sess.stream.reader(cover(sess.named), replayLimit(c.ReplayLimit))
	return h.startBackfill(ctx, r, cover(c.Subscribe), c.Start)
}

// commit makes the change. What is taken away is gone at once; the stream goes on
// to what is added when it has come to where the record is now.
func (h *Hub) commit(sess *session, next roster, c Change, filling *backfill) {
	if next.equal(&sess.roster) {
		return
	}
	if sess.stream == nil {
		h.unpark(sess)
		defer h.park(sess)
	}
	before, named := cover(sess.named), sess.named
	if sess.roster = next; sess.changed == nil {
		sess.changed = new(changed)
	}
	sess.changed.count++
	if slices.Equal(named, next.named) {
		return
	}
	h.changes++
	sess.number = h.changes
	ch := &change{number: sess.number, named: next.named, cover: cover(next.named), at: h.head.Load()}
	sess.narrowFills(ch.cover)
	s := sess.stream
	had := newPatternSet(before)
	noted := fill{
		number: ch.number, at: ch.at, from: c.Start, except: before, sent: s != nil,
		items: slices.DeleteFunc(cover(c.Subscribe), had.covers),
	}
	if s == nil {
		sess.noteFill(noted)
		return
	}
	if len(c.Subscribe) > 0 {
		s.expireAt(c.Expires)
	}
	h.rejoin(s, ch.cover, before, ch.at)
	ch.take(filling, before)
	if ch.fill != nil || len(ch.resets) > 0 {
		sess.noteFill(noted)
	}
	s.queue(ch)
}

// rejoin puts the subscriber where it belongs now.
func (h *Hub) rejoin(s *Subscriber, next, before []string, at uint64) {
	gets := newPatternSet(next)
	has := make(map[string]struct{}, len(s.memberships))
	var leaving []membership
	s.memberships = slices.DeleteFunc(s.memberships, func(m membership) bool {
		has[m.topic.name] = struct{}{}
		_, stays := gets.items[m.topic.name]
		if !stays {
			leaving = append(leaving, m)
		}
		return !stays
	})
	goesOn := make(map[string]struct{}) // with some of it, from where it is
	for _, both := range common(before, next) {
		by, _ := gets.find(both)
		goesOn[by] = struct{}{}
	}
	for _, item := range next {
		if _, ok := has[item]; ok {
			continue
		}
		floor := at
		if _, ok := goesOn[item]; ok {
			floor = 0
		}
		h.enter(s, []string{item}, floor)
	}
	h.exit(leaving)
}
