package caddymodule

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/caddy-sse/caddy-sse/sse"
)

// rules say who may have which channels of a route, as far as the route itself
// knows: what stands before it in the configuration is not among them.
type rules struct {
	channels, allow nameList
	user            string // the option's text
	jwt             string // what tells how tokens are checked from other ways

	// retired says that they are no longer the route's, or never will be as
	// their configuration failed. It is guarded by route.mu.
	retired bool
	// early are the seats of streams that were given something under them before
	// they were in force. It is guarded by route.mu.
	early []*seat
}

// A nameList is the templates of an option that names channels.
type nameList struct {
	all    []template
	plain  []string   // the text of those without placeholders
	filled []template // those with
}

func newNameList(templates []template) nameList {
	l := nameList{all: templates}
	for _, t := range templates {
		if t.plain() {
			l.plain = append(l.plain, t.source)
		} else {
			l.filled = append(l.filled, t)
		}
	}
	return l
}

func (l *nameList) has(t template) bool {
	return slices.ContainsFunc(l.all, func(other template) bool { return other.source == t.source })
}

// with returns the plain names, and what those with placeholders stand for.
func (l *nameList) with(filled [][]string) []string {
	if len(filled) == 0 {
		return l.plain
	}
	return slices.Concat(append([][]string{l.plain}, filled...)...)
}

func (l *nameList) equal(other *nameList) bool {
	return slices.EqualFunc(l.all, other.all, func(a, b template) bool { return a.source == b.source })
}

// equal reports whether nobody could tell the rules apart.
func (r *rules) equal(other *rules) bool {
	return r.user == other.user && r.jwt == other.jwt && r.channels.equal(&other.channels) && r.allow.equal(&other.allow)
}

// fingerprint tells ways of checking tokens apart: by their words and by the key
// that these stand for. The keys of a set are not in it, as they change by
// themselves.
func (j *JWT) fingerprint() (string, error) {
	if j == nil {
		return "", nil
	}
	words, err := json.Marshal(j)
	if err != nil {
		return "", fmt.Errorf("jwt: %w", err)
	}
	sum := sha256.Sum256(append(words, j.digest...))
	return string(sum[:]), nil
}

// personal is what a stream was granted for what its own request said, and what
// cannot be made out again once that is over. Nil is nothing.
type personal struct {
	channels, allow [][]string // what the templates with placeholders stood for, in their order
	token           bool       // there was one
	claim           []string   // what it named
}

// orNil returns nil if there is nothing in it.
func (p *personal) orNil() *personal {
	some := func(names []string) bool { return len(names) > 0 }
	if p == nil || p.token || slices.ContainsFunc(p.channels, some) || slices.ContainsFunc(p.allow, some) {
		return p
	}
	return nil
}

// clone returns a copy that holds on to no part of the request, nil if there is
// nothing in it.
func (p *personal) clone() *personal {
	if p.orNil() == nil {
		return nil
	}
	return &personal{cloneLists(p.channels), cloneLists(p.allow), p.token, cloneNames(p.claim)}
}

func cloneLists(lists [][]string) (copies [][]string) {
	for _, names := range lists {
		copies = append(copies, cloneNames(names))
	}
	return slices.Clip(copies)
}

func cloneNames(names []string) (copies []string) {
	for _, name := range names {
		copies = append(copies, strings.Clone(name))
	}
	return slices.Clip(copies)
}

// carryOver returns what of it goes on when next take the place of the rules: what
// stands there in the same words. What is new allows nothing to a request that is
// over.
func (p *personal) carryOver(before, next *rules) *personal {
	if p == nil {
		return nil
	}
	return &personal{
		carry(p.channels, before.channels.filled, next.channels.filled),
		carry(p.allow, before.allow.filled, next.allow.filled),
		p.token, p.claim,
	}
}

func carry(had [][]string, before, next []template) [][]string {
	kept := make([][]string, len(next))
	for i, t := range next {
		at := slices.IndexFunc(before, func(b template) bool { return b.source == t.source })
		if at >= 0 && at < len(had) {
			kept[i] = had[at]
		}
	}
	return kept
}

// fixed returns what every client gets without asking.
func (r *rules) fixed(own *personal) []string {
	if own == nil {
		return r.channels.plain
	}
	return r.channels.with(own.channels)
}

// allowed returns what a client may ask for.
func (r *rules) allowed(own *personal) []string {
	if own == nil {
		return r.allow.plain
	}
	return append(slices.Clip(r.allow.with(own.allow)), own.claim...)
}

// succeed decides on a stream that was opened under r, with what it was granted
// for itself, when next take their place. It returns what goes on of that, and
// whether the stream does: not if it has what is no longer allowed to it, nor if
// every client gets something now that it has not.
func (r *rules) succeed(next *rules, own *personal, stream *sse.Subscriber) (kept *personal, goesOn bool) {
	if r.user != next.user { // it may be somebody else's
		return nil, false
	}
	if r.jwt != next.jwt && own != nil && own.token {
		return nil, false
	}
	kept = own.carryOver(r, next)
	if slices.ContainsFunc(next.channels.filled, func(t template) bool { return !r.channels.has(t) }) {
		return kept, false // only another request can tell what that is
	}
	has, assigned := stream.Roster()
	before, fixed := r.fixed(own), next.fixed(kept)
	for _, name := range fixed {
		// What was taken away from the stream since is not missing.
		if !slices.Contains(before, name) && !coveredByAny(has, name) {
			return kept, false
		}
	}
	allowed := next.allowed(kept)
	return kept, !slices.ContainsFunc(has, func(name string) bool {
		return !slices.Contains(assigned, name) && !coveredByAny(fixed, name) && !coveredByAny(allowed, name)
	})
}
