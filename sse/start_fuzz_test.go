package sse_test

import (
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// FuzzStart promises that what a client presents as its last id is refused or read
// in the one way in which it was written.
func FuzzStart(f *testing.F) {
	for _, seed := range []string{"e.1", "e.0", "e.5-1-3", "e.5-1-5", "e.5-1-6", "e.5-0-1", "e.5-01-1", "e.5-1", "e.5-", "-", "e.5-1-1-1", "e.5-1-+1", "E.1", "e.18446744073709551615-1-1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, id string) {
		start, err := sse.ParseStart(id)
		position, _, inFill := strings.Cut(id, "-")
		_, positionErr := sse.ParsePosition(position)
		switch {
		case err == nil && sse.StartID(start) != id:
			t.Errorf("%q is read as %q", id, sse.StartID(start))
		case err == nil && positionErr != nil:
			t.Errorf("%q is accepted, but %q is no position", id, position)
		case err != nil && positionErr == nil && !inFill:
			t.Errorf("the position %q is refused: %s", id, err)
		}
	})
}
