package caddymodule

import (
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A route is the streams of a subscriber endpoint. They live as long as a
// configuration has a route of the same identity, see routeKey.
type route struct {
	mu        sync.Mutex // guards what follows
	seats     map[*seat]struct{}
	named     map[string]*seat // by the connection that the client made
	addresses map[string]int   // how many, by addressKey
	users     map[string]int   // how many, by user
	gone      bool
}

// A seat is what a stream takes of the limits of its route.
type seat struct {
	connection, user, address string
	stream                    *sse.Subscriber // nil before it begins
}

func newRoute() (caddy.Destructor, error) {
	return &route{
		seats:     make(map[*seat]struct{}),
		named:     make(map[string]*seat),
		addresses: make(map[string]int),
		users:     make(map[string]int),
	}, nil
}

// enter takes a seat, unless there is none; then it says why, and how many are
// taken. The seat of a stream of the same connection and user, which is about to
// be replaced, is given back.
func (r *route) enter(p *seat, limits *Limits) (full refusal, taken int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.named[p.connection]
	if before != nil && before.user == p.user {
		r.forget(before)
	}
	switch {
	case r.gone:
		full = refusedUnavailable
	case limits.Connections > 0 && len(r.seats) >= limits.Connections:
		full, taken = refusedConnections, len(r.seats)
	case limits.PerIP > 0 && r.addresses[p.address] >= limits.PerIP:
		full, taken = refusedAddress, r.addresses[p.address]
	case limits.PerUser > 0 && p.user != "" && r.users[p.user] >= limits.PerUser:
		full, taken = refusedUser, r.users[p.user]
	default:
		r.remember(p)
		return "", 0
	}
	if before != nil && before.user == p.user {
		r.remember(before)
	}
	return full, taken
}

func (r *route) remember(p *seat) {
	r.seats[p] = struct{}{}
	r.addresses[p.address]++
	r.users[p.user]++
	if r.named[p.connection] == nil {
		r.named[p.connection] = p
	}
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
	r.forget(p)
}

func (r *route) forget(p *seat) {
	if _, ok := r.seats[p]; !ok {
		return
	}
	delete(r.seats, p)
	if r.named[p.connection] == p {
		delete(r.named, p.connection)
	}
	countDown(r.addresses, p.address)
	countDown(r.users, p.user)
}

func countDown(counts map[string]int, key string) {
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
