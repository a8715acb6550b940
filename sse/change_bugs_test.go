package sse_test

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A client is at event 3 of b, and asks for c from the beginning; its stream
// breaks before it received anything of that. As the id 3 could be that of an
// event of the backfill, everything is reset, and what the session knew of the
// backfill is forgotten. But the answer with the reset never arrives: the browser
// comes back once more with the same id. Now the hub says `complete`, and events
// 1 and 2 of c never come: a silent gap.
func TestResetThatDidNotArrive(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "b")
	publish(t, h, "c1", "c")
	publish(t, h, "c2", "c")
	publish(t, h, "bc3", "b", "c")
	drain(s)
	changed(t, h, "c", sse.Change{Subscribe: []string{"c"}, Start: sse.Earliest()})
	s.Leave() // nothing of the backfill was received
	s = reconnect(t, h, "3", "b")
	t.Logf("first, lost:  %q", wire(t, append(s.OpenFrame(), drain(s)...)))
	s.Leave() // the client received nothing of that either
	s = reconnect(t, h, "3", "b")
	got := strings.Join(wire(t, append(s.OpenFrame(), drain(s)...)), " ")
	t.Logf("second: %s", got)
	if !strings.Contains(got, `"reset"`) && (!strings.Contains(got, "=c1") || !strings.Contains(got, "=c2")) {
		t.Errorf("a silent gap: %s", got)
	}
	s.Leave()
}

// The same the other way round: the client did receive an event of the backfill,
// and everything of b up to 5. It gets b's events again, and is told `complete`.
func TestResetThatDidNotArriveDoubles(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "b")
	publish(t, h, "c1", "c")
	publish(t, h, "c2", "c")
	publish(t, h, "b3", "b")
	publish(t, h, "b4", "b")
	drain(s)
	changed(t, h, "c", sse.Change{Subscribe: []string{"c"}, Start: sse.Earliest()})
	s.Leave()
	for range 2 { // the id is that of c2, behind which the stream broke
		s = reconnect(t, h, "2", "b")
		got := strings.Join(wire(t, append(s.OpenFrame(), drain(s)...)), " ")
		t.Log(got)
		if strings.Contains(got, `"complete"`) && strings.Contains(got, "b3") {
			t.Errorf("events of b come a second time: %s", got)
		}
		s.Leave()
	}
}

// A channel is added with a start of which events are gone. The stream breaks
// before `hub:reset` is sent. As nothing is left to backfill, the session does not
// remember that anything was missed: the client that comes back is told
// `complete`.
func TestResetOfAChangeIsLostWithTheStream(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "b")
	publishN(t, h, 5, "c")
	publish(t, h, "b6", "b")
	drain(s)
	changed(t, h, "c", sse.Change{Subscribe: []string{"c"}, Start: after(h, 1), ReplayLimit: 2})
	s.Leave()
	s = reconnect(t, h, "6", "b")
	got := strings.Join(wire(t, append(s.OpenFrame(), drain(s)...)), " ")
	if !strings.Contains(got, `"reset"`) && !strings.Contains(got, "2=2") {
		t.Errorf("events 2 to 5 of c were asked for, are gone, and the client is not told: %s", got)
	}
	s.Leave()
}

// A client that has a1 adds a* from the beginning. The backfill leaves out a1,
// which the client has. If the stream breaks in between, the backfill goes on
// without that exception: events of a1 come a second time.
func TestBackfillOfAPatternGoesOnWithoutWhatWasThere(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "a1")
	publish(t, h, "x", "a2")
	publish(t, h, "a1-2", "a1")
	publish(t, h, "y", "a2")
	publish(t, h, "a1-4", "a1")
	checkWords(t, "at first", wire(t, drain(s)), []string{"2=a1-2", "4=a1-4"})
	changed(t, h, "c", sse.Change{Subscribe: []string{"a*"}, Start: sse.Earliest()})
	frames, _, _ := s.Pull()
	t.Logf("%q", wire(t, frames)) // hub:channels, and no more
	s.Leave()
	s = reconnect(t, h, "4-1-0", "a1")
	got := strings.Join(wire(t, append(s.OpenFrame(), drain(s)...)), " ")
	if strings.Contains(got, "=a1-2") || strings.Contains(got, "=a1-4") {
		t.Errorf("events of a1 came twice: %s", got)
	}
	s.Leave()
}

// A client changes its channels while it is gone, with a start in the past. No
// stream ever carried any of that, but because the id that it comes back with
// might be on what it added, everything is reset, also b, of which all is there.
func TestChangeWhileGoneResetsEverything(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "b")
	publish(t, h, "a1", "a1")
	publish(t, h, "b2", "b")
	drain(s)
	s.Leave()
	changed(t, h, "c", sse.Change{Subscribe: []string{"a*"}, Start: sse.Earliest()})
	publish(t, h, "b3", "b")
	s = reconnect(t, h, "2", "b")
	got := strings.Join(wire(t, append(s.OpenFrame(), drain(s)...)), " ")
	if !strings.Contains(got, "=b3") {
		t.Errorf("b3 is there, and is given up: %s", got)
	}
	s.Leave()
}

// The stream breaks before the client got its first id. It comes back without
// one, gets the channel that it had added, but not its past, which it was
// promised by the answer 200.
func TestBackfillIsLostWithoutAnId(t *testing.T) {
	h := newHub(t, sse.Options{})
	publish(t, h, "r1", "room")
	s := connect(t, h, sse.Latest(), "b")
	changed(t, h, "c", sse.Change{Subscribe: []string{"room"}, Start: sse.Earliest()})
	s.Leave()
	s = connect(t, h, sse.Latest(), "b")
	got := strings.Join(wire(t, append(s.OpenFrame(), drain(s)...)), " ")
	if !strings.Contains(got, "=r1") && !strings.Contains(got, `"reset"`) {
		t.Errorf("the past of room never comes: %s", got)
	}
	s.Leave()
}

// A client whose stream does not read fills the queue of changes, and cannot be
// taken anything away from then on.
func TestClientPreventsWithdrawal(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "team", "b")
	for i := range 16 {
		c := sse.Change{Subscribe: []string{"x"}}
		if i%2 == 1 {
			c = sse.Change{Unsubscribe: []string{"x"}}
		}
		changed(t, h, "c", c)
	}
	_, err := h.Assign(t.Context(), "c", sse.Change{Unsubscribe: []string{"team"}})
	if err != nil {
		t.Errorf("Assign: %v", err)
	}
	publish(t, h, "secret", "team")
	if got := strings.Join(wire(t, drain(s)), " "); strings.Contains(got, "secret") {
		t.Errorf("delivered after the withdrawal was asked for: %s", got)
	}
	s.Leave()
}

// A prefix is taken away. Names under it that the client has by themselves stay,
// although it "cannot ask for them again".
func TestWithdrawnPrefixLeavesNames(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "team-7", "b")
	named, err := h.Assign(t.Context(), "c", sse.Change{Unsubscribe: []string{"team-*"}})
	t.Logf("%q %v", named, err)
	publish(t, h, "secret", "team-7")
	got := strings.Join(wire(t, drain(s)), " ")
	if err == nil && strings.Contains(got, "secret") {
		t.Errorf("team-* was taken away, and this was sent: %s", got)
	}
	_, err = h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"team-7", "team-8"}})
	t.Logf("client asks for it: %v", err)
	s.Leave()
}

// What was taken away is remembered only if the connection had it.
func TestWithdrawalIsForgotten(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "b")
	if _, err := h.Assign(t.Context(), "c", sse.Change{Unsubscribe: []string{"team"}}); err != nil {
		t.Fatal(err)
	}
	ask := sse.Change{Subscribe: []string{"team"}}
	if _, err := h.Change(t.Context(), "c", "", ask); !errors.Is(err, sse.ErrWithdrawn) {
		t.Fatalf("before: %v", err)
	}
	s.Leave()
	s = connect(t, h, sse.Latest(), "b")
	if _, err := h.Change(t.Context(), "c", "", ask); !errors.Is(err, sse.ErrWithdrawn) {
		t.Errorf("after a reconnect within the session it can be asked for again: %v", err)
	}
	s.Leave()
}

// A session of a client that is gone holds on to the whole request line that its
// names are a part of: up to 1 MiB for each of 20,000 sessions.
func TestSessionsHoldOnToRequests(t *testing.T) {
	h := newHub(t, sse.Options{})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range 100 {
		query := fmt.Sprintf("connection-%022d&channel=news&junk=%s", i, strings.Repeat("x", 1<<20))
		s := subscribeWith(t, h, sse.SubscribeOptions{Connection: query[:33], Channels: []string{"news"}, Session: time.Minute})
		s.Leave()
	}
	if grown := int64(heap()) - int64(before); grown > 10<<20 {
		t.Errorf("100 sessions of clients that are gone hold %d MiB", grown>>20)
	}
}

// A fill id as the start of a change is taken for its position alone.
func TestChangeSinceAFillID(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "b")
	publishN(t, h, 5, "room")
	start, err := sse.ParseStart(h.Stats().Position.Epoch + ".5-1-3")
	if err != nil {
		t.Fatal(err)
	}
	changed(t, h, "c", sse.Change{Subscribe: []string{"room"}, Start: start})
	got := strings.Join(wire(t, drain(s)), " ")
	if !strings.Contains(got, "4=4") && !strings.Contains(got, "reset") {
		t.Errorf("the client has room up to 3, and 4 and 5 are lost: %s", got)
	}
	s.Leave()
}

// A channel that was taken away is told to have ended.
func TestEndOfWhatWasTakenAway(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "a", "b", "c")
	for _, name := range []string{"a", "b"} {
		if _, err := h.Publish(t.Context(), sse.Event{Channels: []string{name}, Data: "x", End: sse.EndAfter}); err != nil {
			t.Fatal(err)
		}
	}
	s.Pull() // the first event, while the client is slow
	changed(t, h, "c", sse.Change{Unsubscribe: []string{"b"}})
	got := wire(t, drain(s))
	if slices.Contains(got, `hub:end@ {"channel":"b"}`) {
		t.Errorf("%q", got)
	}
	s.Leave()
}

// A slow client has b, with events 6 to 10 to come from memory, and adds p* as of
// 10. Then so many channels under p* have events that the hub forgets some. What
// the hub says of memory is by the new memberships, what is given up by the old
// cover: as there is one reset (p*) and one item (b), it counts as a reset of
// everything, and 6 to 10 of b are passed over without a word.
func TestGiveUpCountsResetsOfWhatIsNotThereYet(t *testing.T) {
	h := newHub(t, sse.Options{})
	s := connect(t, h, sse.Latest(), "b")
	publishN(t, h, 5, "b")
	drain(s)
	publishN(t, h, 5, "b")
	changed(t, h, "c", sse.Change{Subscribe: []string{"p*"}})
	for i := range 2 * sse.MaxDirty {
		publish(t, h, "p", fmt.Sprintf("p%d", i))
	}
	publish(t, h, "last", "b")
	h.SetOptions(sse.Options{Memory: 1})
	got := strings.Join(wire(t, drain(s)), " ")
	if !strings.Contains(got, "6=6") && !strings.Contains(got, `"channel":"b"`) {
		t.Errorf("6 to 10 of b are in memory, and did not come: %s", got)
	}
	s.Leave()
}

// Somebody else who knows the id waits until its stream breaks: then the session
// is lost, and its owner gets ErrConnection, on which an EventSource gives up.
func TestConnectionIsTakenWhileItsClientIsGone(t *testing.T) {
	h := newHub(t, sse.Options{})
	o := sse.SubscribeOptions{Connection: "c", User: "alice", Session: time.Minute, Channels: []string{"a"}}
	subscribeWith(t, h, o).Leave()
	o.User = "bob"
	if _, err := h.Subscribe(t.Context(), o); !errors.Is(err, sse.ErrConnection) {
		t.Errorf("bob: %v", err)
	}
	o.User = "alice"
	subscribeWith(t, h, o).Leave()
}

// An id of the backfill of a session that is forgotten, whose reset was lost with
// the stream, was taken for one of the new session's changes.
func TestStaleFillNumberMid(t *testing.T) {
	h := newHub(t, sse.Options{})
	publish(t, h, "c1", "c")
	publish(t, h, "c2", "c")
	publish(t, h, "c3", "c")
	publish(t, h, "b4", "b")
	s := connect(t, h, sse.Latest(), "b")
	changed(t, h, "c", sse.Change{Subscribe: []string{"c"}, Start: sse.Earliest()})
	drain(s)
	kick(t, h, sse.Selection{Connection: "c"}) // or it is forgotten, or Caddy restarts
	s.Leave()
	// The client has got c1 of the backfill: 4-1-1. The next stream breaks before anything arrives.
	s = reconnect(t, h, "4-1-1", "b", "c")
	drain(s)
	changed(t, h, "c", sse.Change{Subscribe: []string{"d"}})
	s.Leave()
	s = reconnect(t, h, "4-1-1", "b", "c")
	got := strings.Join(wire(t, append(s.OpenFrame(), drain(s)...)), " ")
	if !strings.Contains(got, `"reset"`) && !strings.Contains(got, "=c2") {
		t.Errorf("c2 and c3 are missing: %s", got)
	}
	s.Leave()
}

// An id of a session that is forgotten confirmed a backfill of the new one.
func TestStaleFillNumberConfirms(t *testing.T) {
	h := newHub(t, sse.Options{})
	publish(t, h, "c1", "c")
	publish(t, h, "b2", "b")
	s := reconnect(t, h, "2-3-2", "b") // of a session that is forgotten
	changed(t, h, "c", sse.Change{Subscribe: []string{"c"}, Start: sse.Earliest()})
	s.Leave() // nothing arrived
	s = reconnect(t, h, "2-3-2", "b")
	got := strings.Join(wire(t, append(s.OpenFrame(), drain(s)...)), " ")
	if !strings.Contains(got, `"reset"`) && !strings.Contains(got, "=c1") {
		t.Errorf("c1 is missing: %s", got)
	}
	s.Leave()
}

// A stream that had been allowed before something was taken away from its connection
// by [Hub.Assign], and came to the hub after it, got that.
func TestAssignOne(t *testing.T) {
	for _, keep := range []time.Duration{0, time.Minute} {
		h := newHub(t, sse.Options{})
		o := sse.SubscribeOptions{Connection: "c", Session: keep, Channels: []string{"team", "x"}}
		s := subscribeWith(t, h, o)
		asked := time.Now()
		if _, err := h.Assign(t.Context(), "c", sse.Change{Unsubscribe: []string{"team"}}); err != nil {
			t.Fatal(err)
		}
		s.Leave()
		o.Asked = asked
		if keep > 0 {
			o.User = "bob"
		}
		s, err := h.Subscribe(t.Context(), o)
		if err != nil {
			continue
		}
		publish(t, h, "secret", "team")
		if got := strings.Join(wire(t, drain(s)), " "); strings.Contains(got, "secret") {
			t.Errorf("keep %v: delivered after the withdrawal, to one who asked before: %s", keep, got)
		}
		s.Leave()
	}
}

// A client that was allowed a channel when its request came, and was not there to be
// chosen when that was taken away from all who had it, got it by a change.
func TestChangeIsOvertaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHub(t, sse.Options{})
		s := connect(t, h, sse.Latest(), "x")
		asked := time.Now()
		time.Sleep(time.Millisecond)
		if n, err := h.AssignAll(t.Context(), sse.Selection{Channel: "team"}, sse.Change{Unsubscribe: []string{"team"}}); n != 0 || err != nil {
			t.Fatal(n, err)
		}
		if _, err := h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"team"}, Asked: asked}); !errors.Is(err, sse.ErrOvertaken) {
			t.Errorf("got %v", err)
		}
		if _, err := h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"else"}, Asked: asked}); err != nil {
			t.Errorf("another channel: %v", err)
		}
		time.Sleep(time.Millisecond)
		if _, err := h.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"team"}, Asked: time.Now()}); err != nil {
			t.Errorf("asked afterwards: %v", err)
		}
		s.Leave()
	})
}

// A stream that had nothing to fill in, and was reset, began with the id of a place
// in a backfill, since the numbers of changes do not begin with zero.
func TestResetWithoutABackfill(t *testing.T) {
	h := newHub(t, sse.Options{})
	other := subscribeWith(t, h, sse.SubscribeOptions{Connection: "other", Channels: []string{"a"}})
	if _, err := h.Change(t.Context(), "other", "", sse.Change{Subscribe: []string{"b"}}); err != nil {
		t.Fatal(err)
	}
	publish(t, h, "1", "a")
	s := connect(t, h, sse.Unknown(), "a")
	if got := wire(t, s.OpenFrame())[0]; !strings.HasPrefix(got, "hub:open@1 ") {
		t.Errorf("got %s", got)
	}
	s.Leave()
	other.Leave()
}
