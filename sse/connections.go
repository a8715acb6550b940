package sse

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// A ConnectionInfo describes an open stream.
type ConnectionInfo struct {
	Connection string
	User       string
	Address    string
	// Channels are what it gets, as it was asked for. The slice must not be
	// modified.
	Channels []string
	// Opened is when the stream began.
	Opened time.Time
}

// A Selection chooses connections. Those are chosen that match all of its fields
// that are not empty; the zero value chooses all that have an identity.
type Selection struct {
	Connection string
	User       string
	// Channel is a name or prefix pattern: chosen are those that get it, or
	// any of it.
	Channel string
}

func (sel *Selection) matches(sess *session) bool {
	return (sel.Connection == "" || sess.connection == sel.Connection) &&
		(sel.User == "" || sess.user == sel.User) &&
		(sel.Channel == "" || slices.ContainsFunc(sess.named, func(has string) bool {
			return Covers(has, sel.Channel) || Covers(sel.Channel, has)
		}))
}

// chosen returns the sessions that are chosen, also of clients that are gone.
func (h *Hub) chosen(sel Selection) []*session {
	if sel.Connection != "" {
		if sess := h.sessions[sel.Connection]; sess != nil && sel.matches(sess) {
			return []*session{sess}
		}
		return nil
	}
	var found []*session
	now := time.Now()
	for _, sess := range h.sessions {
		if sel.matches(sess) && !sess.over(now) {
			found = append(found, sess)
		}
	}
	return found
}

// Knows returns what tells a connection of that user from others, be it open or of
// a client that is gone for the moment; zero if there is none. It stays the same
// when the client comes back, and not when it has been kicked. The error is that of
// [SharedBroker.Ask].
func (h *Hub) Knows(ctx context.Context, connection, user string) (session uint64, err error) {
	answers, err := h.ask(ctx, &question{Knows: &sessionQuestion{connection, user}})
	newest := int64(-1) // where the client is now, if a node has not noticed that it has gone
	for _, a := range answers {
		if a.Known != 0 && a.Opened > newest {
			session, newest = a.Known, a.Opened
		}
	}
	return session, err
}

// KnowsHere is Knows of the connections of this hub alone.
func (h *Hub) KnowsHere(connection, user string) (session uint64) {
	session, _ = h.known(connection, user)
	return session
}

func (h *Hub) known(connection, user string) (session uint64, opened int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sess := h.sessions[connection]
	if sess == nil || sess.user != user || sess.over(time.Now()) {
		return 0, 0
	}
	if sess.stream != nil {
		opened = sess.opened
	}
	return sess.serial, opened
}

// Withdrawn reports whether a name or pattern, or a part of it, was taken away from
// a connection of that user by [Hub.Assign]. Its next stream does not get that,
// whatever it asks for.
func (h *Hub) Withdrawn(connection, user, channel string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	sess := h.sessions[connection]
	return sess != nil && sess.user == user && !sess.over(time.Now()) &&
		(coveredBy(sess.withdrawn, channel) || coversAny(channel, sess.withdrawn))
}

// coversAny reports whether a name or pattern stands for one of others.
func coversAny(item string, others []string) bool {
	return slices.ContainsFunc(others, func(other string) bool { return Covers(item, other) })
}

// Connections returns up to limit of the open streams that are chosen and whose
// connection comes after another in byte order, sorted, of all hubs that share the
// record. The error is that of [SharedBroker.Ask].
func (h *Hub) Connections(ctx context.Context, sel Selection, after string, limit int) ([]ConnectionInfo, error) {
	answers, err := h.ask(ctx, &question{List: &listQuestion{sel, after, limit}})
	if err != nil {
		return nil, err
	}
	var infos []ConnectionInfo
	for _, a := range answers {
		infos = append(infos, a.Connections...)
	}
	slices.SortFunc(infos, func(a, b ConnectionInfo) int { return strings.Compare(a.Connection, b.Connection) })
	return infos[:min(len(infos), limit)], nil
}

func (h *Hub) connections(sel Selection, after string, limit int) []ConnectionInfo {
	h.mu.Lock()
	found := slices.DeleteFunc(h.chosen(sel), func(sess *session) bool {
		return sess.stream == nil || sess.connection <= after
	})
	h.mu.Unlock()
	// There may be many, and nobody should wait until they are sorted.
	slices.SortFunc(found, func(a, b *session) int { return strings.Compare(a.connection, b.connection) })
	found = found[:min(len(found), limit)]

	h.mu.Lock()
	defer h.mu.Unlock()
	infos := make([]ConnectionInfo, 0, len(found))
	for _, sess := range found {
		infos = append(infos, ConnectionInfo{sess.connection, sess.user, sess.address, sess.named, time.Unix(0, sess.opened)})
	}
	return infos
}

// AssignAll makes a change by [Hub.Assign] for all connections that are chosen, also
// those whose client is gone for the moment. It returns how many were changed, and
// the first error of those that could not be, with the connection. Those that are
// forgotten meanwhile are left out.
func (h *Hub) AssignAll(ctx context.Context, sel Selection, c Change) (changed int, err error) {
	answers, err := h.ask(ctx, &question{Assign: &assignQuestion{sel, c.own()}})
	for _, a := range answers {
		changed += a.N
		err = cmp.Or(err, a.err())
	}
	return changed, err
}

func (h *Hub) assignAll(ctx context.Context, sel Selection, c Change) (n int, changed []string, err error) {
	h.mu.Lock()
	if len(c.Unsubscribe) > 0 {
		h.raise(sel)
	}
	var connections []string
	for _, sess := range h.chosen(sel) {
		connections = append(connections, sess.connection)
	}
	h.mu.Unlock()
	for _, connection := range connections {
		switch _, failed := h.assign(ctx, connection, c); {
		case failed == nil:
			n++
			if h.hasChanged(connection) {
				changed = append(changed, connection)
			}
		case err == nil && !errors.Is(failed, ErrNoConnection):
			err = fmt.Errorf("connection %s: %w", connection, failed)
		}
	}
	return n, changed, err
}

// Kick ends the streams that are chosen, with the reason [CloseKicked], and
// forgets what their clients had changed; of clients that are gone for the
// moment too. It returns how many there were. Nothing is sent to them that is
// published after it has returned. Their clients may come back: who must not has
// to be refused by what allows streams, before. The error is that of
// [SharedBroker.Ask]; the streams of this hub are ended even so.
func (h *Hub) Kick(ctx context.Context, sel Selection) (kicked int, err error) {
	kicked = h.kick(sel) // whether others can be reached or not
	if _, shared := h.broker.(SharedBroker); !shared {
		return kicked, nil
	}
	answers, err := h.ask(ctx, &question{Kick: &sel})
	for _, a := range answers {
		kicked += a.N
	}
	return kicked, err
}

func (h *Hub) kick(sel Selection) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.raise(sel)
	found := h.chosen(sel)
	for _, sess := range found {
		if sess.stream == nil {
			h.forgetSession(sess)
			continue
		}
		delete(h.sessions, sess.connection)
		sess.stream.Close(CloseKicked)
	}
	return len(found)
}
