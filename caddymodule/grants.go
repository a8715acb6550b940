package caddymodule

import (
	"net/http"
	"time"
)

// grants are what somebody may publish to and look into: what all of the lists
// allow. None is everything.
type grants struct {
	lists [][]string
	// token is whether one of them is that of a token's claim.
	token bool
	// expires is when they do. Zero is never.
	expires time.Time
}

func (g *grants) covers(name string) bool {
	for _, list := range g.lists {
		if !coveredByAny(list, name) {
			return false
		}
	}
	return true
}

// notAllowed is the error for a channel that may not be published to.
func (q *requests) notAllowed(name string) *problem {
	if !q.grants.token {
		return problemf(http.StatusForbidden, "channel %q is not among those that this endpoint allows", name).in("channel")
	}
	return insufficientScope(name, "channel %q is not among those that both this endpoint allows and the token names")
}

// current returns an error when the grants have expired.
func (g *grants) current() error {
	if g.expires.IsZero() || time.Now().Before(g.expires) {
		return nil
	}
	return invalidToken("the token has expired since the request began: begin another with a new one")
}
