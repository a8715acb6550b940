package caddymodule_test

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/caddymodule"
)

// TestRouteGone promises that a request which was on its way when its route
// went opens no stream that nobody would end.
func TestRouteGone(t *testing.T) {
	if !caddymodule.RemovedTurnsAway() {
		t.Error("a route that is gone admits a stream")
	}
}
