package caddymodule

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddyserver/caddy/v2"
)

// A route is the streams of a subscriber endpoint. They live as long as a
// configuration has a route of the same identity, see routeKey, and take on what
// each of these says of it.
type route struct {
	tuning sse.Tuning // of all its streams
	hub    string
	// Those of the configuration that is in force.
	log    atomic.Pointer[slog.Logger]
	access atomic.Pointer[zap.Logger]

	mu      sync.Mutex // guards what follows
	seats   map[*seat]struct{}
	tallies tallies
	terms   succession[*terms]
	rules   *rules // of those in force, or of the first
	retry   time.Duration
	gone    bool
}

// terms are what a configuration says of a route. They are not changed once it has
// started.
type terms struct {
	hub    string
	log    *slog.Logger
	access *zap.Logger
	rules  *rules
	stream sse.StreamOptions
	retry  time.Duration
	limits *Limits
}

// A seat is what a stream takes of the limits of its route. There is one for each
// stream, so it should be small.
type seat struct {
	guest  *guest          // who is to have the stream, until it begins
	stream *sse.Subscriber // nil before that
	rules  *rules          // that it was opened under, or lives on under
	own    *personal       // what it was granted for itself
}

// A guest is who asks for a stream.
type guest struct {
	owner
	address string
	// judge says that the stream is to be judged when it begins: the rules have
	// changed since, or it was given something under others.
	judge bool
}

func (p *seat) owner() owner {
	if p.stream != nil {
		return owner{p.stream.Connection(), p.stream.User()}
	}
	return p.guest.owner
}

func (p *seat) address() string {
	if p.stream != nil {
		return addressKey(p.stream.Address())
	}
	return addressKey(p.guest.address)
}

func newRoute(first terms) *route {
	r := &route{hub: first.hub, seats: make(map[*seat]struct{}), tallies: newTallies(), rules: first.rules, retry: first.retry}
	r.tuning.Set(first.stream)
	r.log.Store(first.log)
	r.access.Store(first.access)
	return r
}

// acquireRoute returns the route of that identity, and the rules: those in force if
// they say the same. The caller owes the pool a Delete.
func acquireRoute(key routeKey, t terms) (*route, *rules, error) {
	value, _, err := routes.LoadOrNew(key, func() (caddy.Destructor, error) {
		r := newRoute(t)
		r.tuning.Name = key.acrossNodes()
		return r, nil
	})
	if err != nil {
		return nil, nil, err
	}
	r := value.(*route)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.rules.equal(t.rules) {
		return r, r.rules, nil
	}
	return r, t.rules, nil
}

// enter takes a seat, unless there is none; then it says why, and how many are
// taken. A stream of the same connection and user, which is about to be replaced,
// is not in the way, but keeps its seat until it has ended.
func (r *route) enter(p *seat, limits *Limits) (full refusal, taken int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tallies.track(limits, r.seats)
	owned, atHome := min(r.tallies.owners.count(p), 1), min(r.tallies.homes.count(p), 1)
	for _, limit := range []struct {
		why                   refusal
		most, taken, replaced int
	}{
		{refusedConnections, limits.Connections, len(r.seats), owned},
		{refusedAddress, limits.PerIP, r.tallies.addresses.count(p), atHome},
		{refusedUser, limits.PerUser, r.tallies.users.count(p), owned},
	} {
		counts := limit.most > 0 && (limit.why != refusedUser || p.owner().user != "")
		if counts && limit.taken-limit.replaced >= limit.most {
			return limit.why, limit.taken
		}
	}
	if r.gone {
		return refusedUnavailable, 0
	}
	r.seats[p] = struct{}{}
	r.tallies.add(p)
	return "", 0
}

// begin gives a seat its stream, unless the route is no longer configured.
func (r *route) begin(p *seat, s *sse.Subscriber) (ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	judge := p.guest.judge || p.rules.retired // while the request was on its way
	p.stream, p.guest = s, nil                // the stream has the same, and no more of the request
	if judge {
		r.judge(p)
	}
	return !r.gone
}

// leave gives a seat back, if it has not been.
func (r *route) leave(p *seat) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, taken := r.seats[p]; !taken {
		return
	}
	delete(r.seats, p)
	r.tallies.remove(p)
}

// apply puts the terms of a configuration that has started in force, also for the
// streams that are open.
func (r *route) apply(t *terms) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.terms.begin(t)
	r.enforce(t)
}

// retire ends the use of the terms of a configuration that is no more. If they never
// came into force, or it has failed since, streams may have been opened under its
// rules even so: its servers may have run before.
func (r *route) retire(t *terms) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if before, changed := r.terms.end(t); changed {
		r.enforce(before)
	}
	old := t.rules
	if old == r.rules || old.retired {
		return
	}
	old.retired = true
	for p := range r.seats {
		if p.rules == old {
			r.judge(p)
		}
	}
	for _, p := range old.early {
		if _, open := r.seats[p]; open {
			r.judge(p)
		}
	}
	old.early = nil
}

func (r *route) enforce(t *terms) {
	r.log.Store(t.log)
	r.access.Store(t.access)
	r.tallies.drop(t.limits)
	r.retune(t)
	if r.rules == t.rules {
		return
	}
	r.rules.retired = true
	r.rules, t.rules.retired, t.rules.early = t.rules, false, nil
	for p := range r.seats { // also of those under these rules: they may have been changed under the last
		r.judge(p)
	}
}

// retune has the open streams take on their settings.
func (r *route) retune(t *terms) {
	otherRetry := r.retry != t.retry
	if r.tuning.Load() == t.stream && !otherRetry {
		return
	}
	r.tuning.Set(t.stream)
	r.retry = t.retry
	crowd := len(r.seats)
	r.each(func(s *sse.Subscriber) {
		if otherRetry {
			s.SetRetry(t.retry)
		}
		s.Retune(crowd)
	})
}

// reconsider has the stream of a connection looked at again that was given channels
// under rules which are not in force: now if they have been, else when that is decided.
func (r *route) reconsider(changed owner, under *rules) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if under == r.rules {
		return
	}
	for p := range r.seats {
		switch {
		case p.owner() != changed:
		case under.retired:
			r.judge(p)
		default:
			under.early = append(under.early, p)
		}
	}
}

// judge has a stream live on under the rules in force, or end; one that has yet to
// begin, when it does.
func (r *route) judge(p *seat) {
	if p.stream == nil {
		p.guest.judge = true
		return
	}
	p.decide(r.rules)
}

func (p *seat) decide(next *rules) {
	own, goesOn := p.rules.succeed(next, p.own, p.stream)
	if p.rules, p.own = next, own.orNil(); !goesOn {
		p.stream.Close(sse.CloseExpired)
	}
}

func (r *route) each(do func(*sse.Subscriber)) {
	for p := range r.seats {
		if p.stream != nil {
			do(p.stream)
		}
	}
}

// Destruct implements caddy.Destructor: the route is gone, and so are its
// streams.
func (r *route) Destruct() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	r.each(func(s *sse.Subscriber) { s.Close(sse.CloseDrain) })
	return nil
}
