package sse

import (
	"errors"
	"slices"
	"time"
)

// ErrOvertaken is returned to those who want to subscribe, or to go on with what
// they had, after something was taken away from them, on the grounds of what was
// allowed before. They should ask again.
var ErrOvertaken = errors.New("sse: what was allowed has been withdrawn meanwhile")

// A barrier keeps out those who asked before something was taken away: what allowed
// them is out of date, though their streams were not there yet to be ended or
// changed.
type barrier struct {
	at  time.Time
	sel Selection
}

const (
	// barrierLife is for how long a request may be on its way from what allows it
	// to the hub.
	barrierLife = time.Minute
	maxBarriers = 1000
)

// raise puts up a barrier against the selection. If there are very many, the
// oldest is made one against everybody.
func (h *Hub) raise(sel Selection) {
	now := time.Now()
	h.barriers = slices.DeleteFunc(h.barriers, func(b barrier) bool { return now.Sub(b.at) > barrierLife })
	if len(h.barriers) == maxBarriers {
		h.barriers = slices.Delete(h.barriers, 0, 1)
		h.barriers[0].sel = Selection{}
	}
	h.barriers = append(h.barriers, barrier{now, sel})
}

// overtaken reports whether a session is kept out that was asked for at a time.
func (h *Hub) overtaken(sess *session, asked time.Time) bool {
	switch {
	case asked.IsZero():
		return false
	case time.Since(asked) > barrierLife: // of which nothing is known any more
		return true
	}
	return slices.ContainsFunc(h.barriers, func(b barrier) bool {
		return !asked.After(b.at) && b.sel.matches(sess)
	})
}
