package caddymodule

import "slices"

// A succession is what the configurations that are live say of a hub or a route,
// which outlives them, in the order in which they started. The last is in force.
// There are two of them during a reload, and the older one is in force again if the
// newer one fails after it has started, as it does if Caddy cannot set up what is not
// an app.
type succession[T comparable] struct{ live []T }

// begin notes what a configuration says that has started.
func (s *succession[T]) begin(t T) { s.live = append(s.live, t) }

// current returns what the configuration in force says, if there is one.
func (s *succession[T]) current() (inForce T, ok bool) {
	if len(s.live) == 0 {
		return inForce, false
	}
	return s.live[len(s.live)-1], true
}

// end forgets what a configuration says that is no more, if it had started. It reports
// whether another is in force for that, and what it says.
func (s *succession[T]) end(t T) (inForce T, changed bool) {
	at := slices.Index(s.live, t)
	if at < 0 {
		return inForce, false
	}
	wasInForce := at == len(s.live)-1
	s.live = slices.Delete(s.live, at, at+1)
	if wasInForce {
		return s.current()
	}
	return inForce, false
}
