package sse

import (
	"context"
	"time"
)

// A sessionState is a session on its way to another hub, where its client has come
// back.
type sessionState struct {
	Named     []string      `json:"named"`
	Fixed     int32         `json:"fixed"`
	Given     []string      `json:"given,omitempty"`
	Withdrawn []string      `json:"withdrawn,omitempty"`
	Changes   uint64        `json:"changes"`
	Fills     []fillState   `json:"fills,omitempty"`
	Base      uint64        `json:"base"`
	Number    uint64        `json:"number"`
	Keep      time.Duration `json:"keep"`
}

// A fillState is a fill.
type fillState struct {
	Number uint64   `json:"number"`
	At     uint64   `json:"at"`
	From   Start    `json:"from"`
	Items  []string `json:"items"`
	Except []string `json:"except,omitempty"`
	Sent   bool     `json:"sent,omitempty"`
	Lost   bool     `json:"lost,omitempty"`
}

// fetch brings the session of a client that comes back to this hub, if another one
// has it and it was changed: what was not is what the client asks for. Who asks for a
// stream for the first time has none.
func (h *Hub) fetch(ctx context.Context, o *SubscribeOptions) error {
	shared, ok := h.broker.(SharedBroker)
	if !ok || o.Session <= 0 || o.Connection == "" || o.Start.kind == startLatest || h.hasChanged(o.Connection) {
		return nil
	}
	if marked, err := shared.Marked(ctx, o.Connection); err != nil || !marked {
		return err
	}
	answers, err := h.ask(ctx, &question{Take: &sessionQuestion{o.Connection, o.User}})
	if err != nil {
		return err
	}
	var newest *sessionState
	for _, a := range answers {
		if err := a.err(); err != nil {
			return err
		}
		if a.Session != nil && (newest == nil || a.Session.Changes > newest.Changes) {
			newest = a.Session
		}
	}
	if newest != nil {
		h.takeIn(o, newest)
	}
	return nil
}

// markChanged has other hubs know that a session was changed, should its client come to
// them.
func (h *Hub) markChanged(ctx context.Context, connection string) error {
	if shared, ok := h.broker.(SharedBroker); ok {
		return shared.Mark(ctx, connection)
	}
	return nil
}

// hasChanged reports whether this hub has a session that was changed.
func (h *Hub) hasChanged(connection string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	sess := h.sessions[connection]
	return sess != nil && sess.changed != nil
}

// giveAway hands over a session of that user, and ends its stream if the hub has one:
// its client has gone elsewhere. It returns nil if there is none.
func (h *Hub) giveAway(connection, user string) (*sessionState, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	sess := h.sessions[connection]
	switch {
	case sess == nil || sess.over(time.Now()):
		return nil, nil
	case sess.user != user && sess.user != "":
		return nil, ErrConnection
	case sess.starting: // its client has come to both hubs at once
		return nil, nil
	}
	if sess.stream != nil {
		delete(h.sessions, connection)
		sess.stream.Close(CloseReplaced)
	} else {
		h.forgetSession(sess)
	}
	if sess.user != user {
		return nil, nil
	}
	return sess.state(), nil
}

func (sess *session) state() *sessionState {
	s := &sessionState{
		Named: sess.named, Fixed: sess.fixed, Given: sess.given, Withdrawn: sess.withdrawn,
		Changes: sess.changes(), Base: sess.base, Number: sess.number, Keep: sess.keep,
	}
	for _, f := range sess.fills() {
		s.Fills = append(s.Fills, fillState{f.number, f.at, f.from, f.items, f.except, f.sent, f.lost})
	}
	return s
}

// takeIn makes a session of another hub one of this hub's, whose client is away until
// it subscribes.
func (h *Hub) takeIn(o *SubscribeOptions, s *sessionState) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[o.Connection] != nil {
		return // its client has come twice
	}
	h.serial++
	sess := &session{
		connection: o.Connection, user: o.User, address: o.Address, opened: time.Now().UnixNano(), keep: s.Keep,
		roster: roster{named: s.Named, fixed: s.Fixed, inside: &inside{s.Given, s.Withdrawn}},
		base:   s.Base, number: s.Number, serial: h.serial,
		absent: &absence{until: time.Now().Add(max(s.Keep, time.Minute)).UnixNano()},
	}
	if s.Changes > 0 {
		sess.changed = &changed{count: s.Changes}
		for _, f := range s.Fills {
			sess.changed.fills = append(sess.changed.fills, fill{f.Number, f.At, f.From, f.Items, f.Except, f.Sent, f.Lost})
		}
	}
	h.changes = max(h.changes, s.Number) // or its next change would have a smaller number
	h.sessions[sess.connection] = sess
	h.park(sess)
}
