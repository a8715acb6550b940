package caddytest_test

import (
	"testing"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
)

// TestFreePort holds that two who ask for a port get two. The system gave the same
// port twice to tests that asked for several, since nobody listened on the first yet:
// two servers of one test then shared it, or one could not start.
func TestFreePort(t *testing.T) {
	const many = 1000 // of the system's 28,000, some would come twice
	seen := make(map[int]bool)
	for range many {
		port := caddytest.FreePort(t)
		if seen[port] {
			t.Fatalf("port %d was handed out twice", port)
		}
		seen[port] = true
	}
}
