package sse_test

import (
	"context"
	"strings"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A countHook is a keeper that lets a test do something while the hub's lock is
// released for a count.
type countHook struct {
	*keeper
	before func()
}

func (k *countHook) Count(ctx context.Context, after sse.Position, channels []string, limit int) (int, error) {
	if before := k.before; before != nil {
		k.before = nil
		before()
	}
	return k.keeper.Count(ctx, after, channels, limit)
}

// A change waits for the record, and another is made meanwhile. What has to be
// backfilled was decided by what the connection had before: it is answered 200,
// and the past that was asked for does not come.
func TestChangeWhileAnotherReadsTheRecord(t *testing.T) {
	for name, tc := range map[string]struct {
		has   string
		other sse.Change
		want  string
	}{
		"what covered it is gone": {"a*", sse.Change{Unsubscribe: []string{"a*"}}, "1=a1"},
	} {
		t.Run(name, func(t *testing.T) {
			k := &countHook{keeper: newKeeper()}
			h := newHubOn(t, k, sse.Options{})
			s := connect(t, h, sse.Latest(), "x")
			publish(t, h, "a1", "a1")
			publish(t, h, "z", "z")
			s.Leave()
			s = connect(t, h, sse.Latest(), tc.has)
			h.EvictAll()
			k.before = func() { changed(t, h, "c", tc.other) }
			named := changed(t, h, "c", sse.Change{Subscribe: []string{"a1", "z"}, Start: sse.Earliest()})
			got := strings.Join(wire(t, drain(s)), " ")
			if !strings.Contains(got, tc.want) {
				t.Errorf("it has %q, and its past is missing: %s", named, got)
			}
			s.Leave()
		})
	}
}

// The same change, after which the client takes the channel away again while its
// backfill is under way, and loses its stream: everything is reset, though nothing
// is missing.
func TestUnsubscribeWithinABackfill(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "b")
	publishN(t, h, 3, "c")
	publish(t, h, "b4", "b")
	drain(s)
	changed(t, h, "c", sse.Change{Subscribe: []string{"c"}, Start: sse.Earliest()})
	s.Pull()
	changed(t, h, "c", sse.Change{Unsubscribe: []string{"c"}})
	s.Leave()
	publish(t, h, "b5", "b")
	s = reconnect(t, h, "4-1-2", "b")
	got := strings.Join(wire(t, append(s.OpenFrame(), drain(s)...)), " ")
	if !strings.Contains(got, "=b5") {
		t.Errorf("b5 is given up: %s", got)
	}
	s.Leave()
}

// A reader of a backfill that was narrowed from a prefix to a name counts resets
// by the prefix.
func TestBackfillIsNarrowed(t *testing.T) {
	h := newHub(t, sse.Options{})
	publishN(t, h, 4, "a1")
	publishN(t, h, 4, "a2")
	s := connect(t, h, sse.Latest(), "b")
	changed(t, h, "c", sse.Change{Subscribe: []string{"a*"}, Start: sse.Earliest()})
	changed(t, h, "c", sse.Change{Subscribe: []string{"a1"}, Unsubscribe: []string{"a*"}})
	got := strings.Join(wire(t, drain(s)), " ")
	if strings.Contains(got, "8=8") || !strings.Contains(got, "4=4") {
		t.Errorf("%s", got)
	}
	s.Leave()
}

// A stream is told of an event on p1 while it has a change before it. Then p1 is
// evicted and forgotten, as a channel of which nothing is kept. Making the change
// replaces what the stream was told (which would find the hole) by what the hub
// still knows: the event is lost without a word.
func TestForgottenBeforeAChangeIsMade(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "p*")
	changed(t, h, "c", sse.Change{Subscribe: []string{"q"}})
	publish(t, h, "lost", "p1")
	publish(t, h, "other", "z")
	h.SetOptions(sse.Options{Memory: 1})
	got := strings.Join(wire(t, drain(s)), " ")
	got += strings.Join(wire(t, s.KeepaliveFrame()), " ")
	if !strings.Contains(got, "reset") && !strings.Contains(got, "1=lost") {
		t.Errorf("event 1 is gone, and the client is not told: %s", got)
	}
	s.Leave()
}
