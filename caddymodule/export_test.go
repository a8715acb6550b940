package caddymodule

import "github.com/caddy-sse/caddy-sse/sse"

var (
	ParseJSON = parseJSON
	ParseForm = parseForm
)

// ProblemStatus returns the status of the problem in an error, zero if there
// is none.
func ProblemStatus(err error) int {
	if p, ok := err.(*problem); ok {
		return p.Status
	}
	return 0
}

// RemovedTurnsAway reports whether a route that is gone turns a stream away.
func RemovedTurnsAway() bool {
	r := &route{streams: make(map[*sse.Subscriber]struct{})}
	_ = r.Destruct() // it never fails
	return r.add(new(sse.Subscriber), 0) == removed
}
