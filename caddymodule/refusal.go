package caddymodule

import (
	"maps"
	"net/http"
	"sync"
)

// A refusal is why a request was refused, as it is counted.
type refusal string

// The reasons for which requests are refused.
const (
	refusedMalformed       refusal = "malformed"       // it must be mended
	refusedUnauthenticated refusal = "unauthenticated" // it does not say who asks, or not in a way that is accepted
	refusedForbidden       refusal = "forbidden"       // who asks may not have it
	refusedOrigin          refusal = "origin"          // a page of another site asks
	refusedUnknown         refusal = "unknown"         // there is nothing of that name
	refusedTooLarge        refusal = "too_large"       // it is larger than may be
	refusedConnections     refusal = "connections"     // the route has as many streams as may be
	refusedAddress         refusal = "per_ip"          // the client's address has
	refusedUser            refusal = "per_user"        // the user has
	refusedRate            refusal = "rate"            // more is published than may be
	refusedUnavailable     refusal = "unavailable"     // the hub or the broker cannot do it now
	refusedConflict        refusal = "conflict"        // what there is forbids it
)

var refusals = []refusal{
	refusedMalformed, refusedUnauthenticated, refusedForbidden, refusedOrigin, refusedUnknown, refusedTooLarge,
	refusedConnections, refusedAddress, refusedUser, refusedRate, refusedUnavailable, refusedConflict,
}

// refusalOf returns the reason of a status, where none is given.
func refusalOf(status int) refusal {
	switch status {
	case http.StatusUnauthorized:
		return refusedUnauthenticated
	case http.StatusForbidden:
		return refusedForbidden
	case http.StatusNotFound:
		return refusedUnknown
	case http.StatusConflict:
		return refusedConflict
	case http.StatusRequestEntityTooLarge:
		return refusedTooLarge
	case http.StatusTooManyRequests:
		return refusedRate
	}
	if status >= http.StatusInternalServerError {
		return refusedUnavailable
	}
	return refusedMalformed
}

// A refusalCounter counts refused requests by reason. The zero value is ready for
// use, by several goroutines.
type refusalCounter struct {
	mu     sync.Mutex // guards counts
	counts map[refusal]uint64
}

func (c *refusalCounter) add(reason refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = make(map[refusal]uint64)
	}
	c.counts[reason]++
}

// snapshot returns the counts, also those that are zero.
func (c *refusalCounter) snapshot() map[refusal]uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	counts := make(map[refusal]uint64, len(refusals))
	for _, reason := range refusals {
		counts[reason] = 0
	}
	maps.Copy(counts, c.counts)
	return counts
}
