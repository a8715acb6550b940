package caddymodule_test

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/caddymodule"
	"github.com/caddy-sse/caddy-sse/sse"
)

// TestRouteGone promises that a request which was on its way when its route
// went opens no stream that nobody would end.
func TestRouteGone(t *testing.T) {
	if !caddymodule.RemovedTurnsAway() {
		t.Error("a route that is gone admits a stream")
	}
}

// TestRulesOvertake promises that no stream gets by what was on its way during a
// reload, or by a configuration that failed, what the rules in force do not allow.
func TestRulesOvertake(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, r *caddymodule.Route) *caddymodule.Request
		want sse.CloseReason
	}{
		{"an open stream", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			q := r.Enter()
			begin(t, q, "b")
			r.Start(r.Provisioned("a"))
			return q
		}, sse.CloseExpired},
		{"an open stream that has no more than is allowed", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			q := r.Enter()
			begin(t, q, "a")
			r.Start(r.Provisioned("a"))
			return q
		}, sse.CloseClient},
		{"a request on its way", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			q := r.Enter()
			r.Start(r.Provisioned("a"))
			begin(t, q, "b")
			return q
		}, sse.CloseExpired},
		{"a change on its way", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			q, before := r.Enter(), r.Rules()
			begin(t, q, "a")
			r.Start(r.Provisioned("a"))
			change(t, q, before, "b")
			return q
		}, sse.CloseExpired},
		{"a change under the rules in force", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			q := r.Enter()
			begin(t, q, "a")
			r.Start(r.Provisioned("a", "c"))
			change(t, q, r.Rules(), "c")
			return q
		}, sse.CloseClient},
		{"a stream of a configuration that fails", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			fails := r.Provisioned("c")
			q := r.EnterUnder(fails)
			begin(t, q, "c")
			r.CleanUp(fails)
			return q
		}, sse.CloseExpired},
		{"a request to one that has failed", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			fails := r.Provisioned("c")
			q := r.EnterUnder(fails)
			r.CleanUp(fails)
			begin(t, q, "c")
			return q
		}, sse.CloseExpired},
		{"a stream of a configuration that starts", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			before, starts := r.Rules(), r.Provisioned("c")
			q := r.EnterUnder(starts)
			begin(t, q, "c")
			r.Start(starts)
			r.CleanUp(before)
			return q
		}, sse.CloseClient},
		{"a stream after a configuration that failed late", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			fails := r.Provisioned("a")
			r.Start(fails)
			r.CleanUp(fails)
			q := r.Enter()
			begin(t, q, "b")
			return q
		}, sse.CloseClient},
		{"a stream of a configuration that fails late", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			fails := r.Provisioned("a", "c")
			r.Start(fails)
			q := r.Enter()
			begin(t, q, "c")
			r.CleanUp(fails)
			return q
		}, sse.CloseExpired},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.do(t, newRoute(t)).End(t.Context()); got != tc.want {
				t.Errorf("the stream ended for %q, want %q", got, tc.want)
			}
		})
	}
}

// TestRulesOvertakeChanges holds bugs: while a reload was under way, a stream was given
// a channel by a request under other rules than its own, and nobody looked at that. It
// went on with what the rules in force did not allow.
func TestRulesOvertakeChanges(t *testing.T) {
	for _, tc := range []struct {
		name string
		do   func(t *testing.T, r *caddymodule.Route) *caddymodule.Request
	}{
		{"by the old server, of a stream of the new one, before this has started", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			before, next := r.Rules(), r.Provisioned("a")
			q := r.EnterUnder(next)
			begin(t, q, "a")
			change(t, q, before, "b")
			r.Start(next)
			return q
		}},
		{"by the old server, of a stream that is about to begin on the new one", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			before, next := r.Rules(), r.Provisioned("a")
			r.Start(next)
			q := r.Enter()
			beginWith(t, q, func() { change(t, q, before, "b") }, "a")
			return q
		}},
		{"by the old server, of a stream that is about to begin when the new one starts", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			before, next := r.Rules(), r.Provisioned("a")
			q := r.EnterUnder(next)
			beginWith(t, q, func() {
				change(t, q, before, "b")
				r.Start(next)
			}, "a")
			return q
		}},
		{"by a new server that fails, of a stream of the old one", func(t *testing.T, r *caddymodule.Route) *caddymodule.Request {
			fails := r.Provisioned("a", "c")
			q := r.Enter()
			begin(t, q, "a")
			change(t, q, fails, "c")
			r.CleanUp(fails)
			return q
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.do(t, newRoute(t)).End(t.Context()); got != sse.CloseExpired {
				t.Errorf("the stream ended for %q, want %q", got, sse.CloseExpired)
			}
		})
	}
}

// newRoute returns a route on which a configuration in force allows a and b.
func newRoute(t *testing.T) *caddymodule.Route {
	t.Helper()
	hub, err := sse.NewHub(t.Context(), sse.NewMemoryBroker(), sse.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(hub.Close)
	return caddymodule.NewRoute(hub, "a", "b")
}

func begin(t *testing.T, q *caddymodule.Request, channels ...string) {
	t.Helper()
	beginWith(t, q, func() {}, channels...)
}

// beginWith begins while something else happens.
func beginWith(t *testing.T, q *caddymodule.Request, between func(), channels ...string) {
	t.Helper()
	if err := q.Begin(t.Context(), between, channels...); err != nil {
		t.Fatal(err)
	}
}

func change(t *testing.T, q *caddymodule.Request, under *caddymodule.Rules, channels ...string) {
	t.Helper()
	if err := q.Change(t.Context(), under, channels...); err != nil {
		t.Fatal(err)
	}
}
