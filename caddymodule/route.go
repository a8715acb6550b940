package caddymodule

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A route is the streams of a subscriber endpoint. They live as long as a
// configuration has a route of the same identity, see routeKey.
type route struct {
	mu        sync.Mutex // guards what follows
	seats     map[*seat]struct{}
	owners    map[owner]int  // how many, by the connection that the client made
	homes     map[home]int   // those of an owner at an address
	addresses map[string]int // how many, by addressKey
	users     map[string]int // how many, by user
	gone      bool

	hub string
	// Those of the newest configuration.
	log    atomic.Pointer[slog.Logger]
	access atomic.Pointer[zap.Logger]
}

// A seat is what a stream takes of the limits of its route.
type seat struct {
	owner
	address string
	stream  *sse.Subscriber // nil before it begins
}

// An owner is a connection of a user.
type owner struct{ connection, user string }

// A home is an owner at an address.
type home struct {
	owner
	address string
}

func newRoute(hub string) *route {
	return &route{
		hub:       hub,
		seats:     make(map[*seat]struct{}),
		owners:    make(map[owner]int),
		homes:     make(map[home]int),
		addresses: make(map[string]int),
		users:     make(map[string]int),
	}
}

// enter takes a seat, unless there is none; then it says why, and how many are
// taken. A stream of the same connection and user, which is about to be replaced,
// is not in the way, but keeps its seat until it has ended.
func (r *route) enter(p *seat, limits *Limits) (full refusal, taken int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	owned, atHome := min(r.owners[p.owner], 1), min(r.homes[home{p.owner, p.address}], 1)
	for _, limit := range []struct {
		why                   refusal
		most, taken, replaced int
	}{
		{refusedConnections, limits.Connections, len(r.seats), owned},
		{refusedAddress, limits.PerIP, r.addresses[p.address], atHome},
		{refusedUser, limits.PerUser, r.users[p.user], owned},
	} {
		counts := limit.most > 0 && (limit.why != refusedUser || p.user != "")
		if counts && limit.taken-limit.replaced >= limit.most {
			return limit.why, limit.taken
		}
	}
	if r.gone {
		return refusedUnavailable, 0
	}
	r.seats[p] = struct{}{}
	r.owners[p.owner]++
	r.homes[home{p.owner, p.address}]++
	r.addresses[p.address]++
	r.users[p.user]++
	return "", 0
}

// begin gives a seat its stream, unless the route is no longer configured.
func (r *route) begin(p *seat, s *sse.Subscriber) (ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p.stream = s
	return !r.gone
}

// leave gives a seat back.
func (r *route) leave(p *seat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seats, p)
	countDown(r.owners, p.owner)
	countDown(r.homes, home{p.owner, p.address})
	countDown(r.addresses, p.address)
	countDown(r.users, p.user)
}

func countDown[K comparable](counts map[K]int, key K) {
	if counts[key]--; counts[key] == 0 {
		delete(counts, key)
	}
}

// Destruct implements caddy.Destructor: the route is gone, and so are its
// streams.
func (r *route) Destruct() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	for p := range r.seats {
		if p.stream != nil {
			p.stream.Close(sse.CloseDrain)
		}
	}
	return nil
}
