package sse

import (
	"fmt"
	"slices"
	"strings"
)

// A roster is what a connection gets. The slices are never modified.
type roster struct {
	named   []string // all of it, as it was asked for
	fixed   int32    // how many of the first the client cannot do without
	*inside          // never nil
}

// An inside is what was done to a roster from inside. It is never modified.
type inside struct {
	given     []string // those that came from there
	withdrawn []string // what was taken away
}

// untouched is the inside of a roster to which nothing was done from there.
var untouched = new(inside)

// cloneNames copies names, which may be parts of whole requests.
func cloneNames(names []string) []string {
	copies := make([]string, len(names))
	for i, name := range names {
		copies[i] = strings.Clone(name)
	}
	return copies
}

// add adds names, each once.
func (r *roster) add(names []string) {
	r.named = slices.Clip(r.named) // others may have the slice
	has := make(map[string]struct{}, len(r.named)+len(names))
	for _, name := range r.named {
		has[name] = struct{}{}
	}
	for _, name := range names {
		if _, again := has[name]; !again {
			has[name] = struct{}{}
			r.named = append(r.named, name)
		}
	}
}

// changedByClient returns what the connection has after a change that its client
// asks for.
func (r *roster) changedByClient(c Change) (roster, error) {
	for _, name := range c.Unsubscribe {
		if slices.Contains(r.named[:r.fixed], name) {
			return *r, fmt.Errorf("%w: every client has %q", ErrChange, name)
		}
	}
	if withdrawn := common(r.withdrawn, c.Subscribe); len(withdrawn) > 0 {
		return *r, fmt.Errorf("%w: %q", ErrWithdrawn, withdrawn[0])
	}
	return r.with(c, func(name string) bool { return slices.Contains(c.Unsubscribe, name) })
}

// changedFromInside does so for those who run the hub.
func (r *roster) changedFromInside(c Change) (roster, error) {
	gone := newPatternSet(c.Unsubscribe)
	next, err := r.with(c, gone.covers)
	if err != nil {
		return next, err
	}
	next.inside = &inside{
		given:     without(r.given, c.Unsubscribe, c.Subscribe),
		withdrawn: without(r.withdrawn, c.Subscribe, c.Unsubscribe),
	}
	for _, list := range [][]string{next.named, next.given, next.withdrawn} {
		if n := len(list); n > maxRoster {
			return *r, fmt.Errorf("%w: %d channels would be given or taken away, and %d are possible on one connection", ErrChange, n, maxRoster)
		}
	}
	return next, nil
}

// without returns the list without what the one stands for and with the other,
// sorted, each once.
func without(list, gone, more []string) []string {
	goes := newPatternSet(gone)
	list = append(slices.DeleteFunc(slices.Clone(list), goes.covers), more...)
	slices.Sort(list)
	return slices.Compact(list)
}

// equal reports whether nothing differs.
func (r *roster) equal(other *roster) bool {
	return slices.Equal(r.named, other.named) && slices.Equal(r.given, other.given) && slices.Equal(r.withdrawn, other.withdrawn)
}

// with returns the roster without those names of which gone says so, and with what
// is added.
func (r *roster) with(c Change, gone func(name string) bool) (next roster, err error) {
	next = *r
	next.named, next.fixed = nil, 0
	for i, name := range r.named {
		if gone(name) {
			continue
		}
		next.named = append(next.named, name)
		if i < int(r.fixed) {
			next.fixed++
		}
	}
	next.add(c.Subscribe)
	has := newPatternSet(next.named)
	for _, name := range c.Unsubscribe {
		if by, ok := has.find(name); ok {
			return *r, fmt.Errorf("%w: without %q it would still get that by %q; change that instead", ErrChange, name, by)
		}
	}
	if n := len(next.named); c.MaxChannels > 0 && n > c.MaxChannels && n > len(r.named) {
		return *r, fmt.Errorf("%w: a stream can have %d channels at most, not %d", ErrChange, c.MaxChannels, n)
	}
	return next, nil
}
