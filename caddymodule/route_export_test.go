package caddymodule

import (
	"context"
	"net/http/httptest"

	"github.com/caddy-sse/caddy-sse/sse"
)

// RemovedTurnsAway reports whether a route that is gone turns a stream away.
func RemovedTurnsAway() bool {
	r := newRoute(terms{rules: new(rules)})
	begun := &seat{guest: new(guest), rules: r.rules}
	r.enter(begun, &Limits{})
	_ = r.Destruct() // it never fails
	full, _ := r.enter(&seat{guest: new(guest), rules: r.rules}, &Limits{})
	return full == refusedUnavailable && !r.begin(begun, new(sse.Subscriber))
}

// Rules are those of a route.
type Rules = rules

// A Route is one with a hub, for what no request can be timed to meet. Channels are
// what `allow` says.
type Route struct {
	hub   *sse.Hub
	route *route
	terms map[*Rules]*terms
}

// NewRoute returns a route that a configuration in force allows channels on.
func NewRoute(hub *sse.Hub, allow ...string) *Route {
	first := terms{rules: allowing(allow)}
	r := &Route{hub, newRoute(first), make(map[*Rules]*terms)}
	r.Start(first.rules)
	return r
}

func allowing(names []string) *Rules {
	allow, _ := parseTemplates("allow", names) // those of the tests are good
	return &rules{allow: newNameList(allow)}
}

// A Request is one that a configuration let in, and that has yet to get its stream.
type Request struct {
	route *Route
	seat  *seat
}

// Enter lets a request in under the rules in force.
func (r *Route) Enter() *Request { return r.EnterUnder(r.route.rules) }

// EnterUnder lets one in under those of another configuration.
func (r *Route) EnterUnder(under *Rules) *Request {
	p := &seat{guest: &guest{owner: owner{connection: "connection"}}, rules: under}
	r.route.enter(p, new(Limits))
	return &Request{r, p}
}

// Provisioned returns rules of a configuration that has not started yet.
func (r *Route) Provisioned(allow ...string) *Rules { return allowing(allow) }

// Start puts rules in force.
func (r *Route) Start(under *Rules) { r.route.apply(r.of(under)) }

// CleanUp is what happens to a configuration that has failed or is over.
func (r *Route) CleanUp(under *Rules) { r.route.retire(r.of(under)) }

// of returns the terms with those rules.
func (r *Route) of(under *Rules) *terms {
	if r.terms[under] == nil {
		r.terms[under] = &terms{rules: under, limits: new(Limits)}
	}
	return r.terms[under]
}

// Begin gives the request its stream of channels, and the stream its seat. What comes
// between is what happens meanwhile.
func (q *Request) Begin(ctx context.Context, between func(), channels ...string) error {
	s, err := q.route.hub.Subscribe(ctx, sse.SubscribeOptions{Connection: "connection", Channels: channels, Tuning: &q.route.route.tuning})
	if err == nil {
		between()
		q.route.route.begin(q.seat, s)
	}
	return err
}

// Change adds channels to the stream, as a request does that was let in under
// rules.
func (q *Request) Change(ctx context.Context, under *Rules, channels ...string) error {
	_, err := q.route.hub.Change(ctx, "connection", "", sse.Change{Subscribe: channels, Tuning: q.route.route.tuning.Name})
	q.route.route.reconsider(owner{connection: "connection"}, under)
	return err
}

// Rules returns those in force.
func (r *Route) Rules() *Rules { return r.route.rules }

// End returns why the stream has ended, or ends it as its client would.
func (q *Request) End(ctx context.Context) sse.CloseReason {
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	end := q.seat.stream.Stream(ctx, httptest.NewRecorder(), &q.route.route.tuning)
	q.route.route.leave(q.seat)
	return end.Reason
}
