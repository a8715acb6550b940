package sse_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A flappingKeeper has another record when it is asked for the second time.
type flappingKeeper struct {
	*keeper
	asked atomic.Bool
}

func (k *flappingKeeper) State(ctx context.Context) (sse.State, error) {
	if k.asked.Swap(true) {
		return k.keeper.State(ctx)
	}
	gone := sse.Position{Epoch: "gone", Seq: 5}
	return sse.State{Oldest: gone, Newest: gone}, nil
}

func (k *flappingKeeper) Tail(ctx context.Context, after sse.Position, deliver func([]sse.Entry)) error {
	if after.Epoch != "kept" {
		return sse.ErrGone
	}
	return k.keeper.Tail(ctx, after, deliver)
}

// A record was lost just before a hub followed it for the first time. The hub then
// tried for ever to follow what was gone, and everybody waited for it.
func TestHubLostAtStart(t *testing.T) {
	h := newHubOn(t, &flappingKeeper{keeper: newKeeper()}, sse.Options{})
	select {
	case <-h.Lost():
	case <-time.After(lostPatience):
		t.Error("it does not say that its record is gone")
	}
}

// lostPatience bounds waits on every system.
const lostPatience = 20 * time.Second

// A busyKeeper holds up an answer.
type busyKeeper struct {
	*sharedKeeper
	answering, goOn chan struct{}
}

func (k *busyKeeper) Answer(_ context.Context, q sse.Question, _ []byte) error {
	if q.ID == "slow" {
		close(k.answering)
		<-k.goOn
	}
	return nil
}

// A node that had been cut off was given a kick, and the events behind it. It sent them
// to who was to be kicked, since the kick waited for the answers before it.
func TestClusterKickOvertaken(t *testing.T) {
	k := &busyKeeper{newSharedKeeper(1), make(chan struct{}), make(chan struct{})}
	h := newHubOn(t, k, sse.Options{})
	publishN(t, h, 1, "first")
	seen := &recorder{}
	s := startStream(t, subscribeWith(t, h, sse.SubscribeOptions{Connection: "c", User: "alice", Channels: []string{"a"}}), seen, quiet)
	k.put(&sse.Question{ID: "slow", Body: []byte(`{"count":["a"]}`)})
	<-k.answering
	k.put(&sse.Question{ID: "kick", Body: []byte(`{"kick":{"User":"alice"}}`)})
	publish(t, h, "secret", "a")
	<-s.done
	close(k.goOn)
	if strings.Contains(string(seen.bytes()), "secret") || s.end.Reason != sse.CloseKicked {
		t.Errorf("it ended %+v after %s", s.end, seen.bytes())
	}
}

// So was a channel that was taken away.
func TestClusterWithdrawalOvertaken(t *testing.T) {
	k := &busyKeeper{newSharedKeeper(1), make(chan struct{}), make(chan struct{})}
	h := newHubOn(t, k, sse.Options{})
	publishN(t, h, 1, "first")
	seen := &recorder{}
	s := startStream(t, subscribeWith(t, h, sse.SubscribeOptions{Connection: "c", User: "alice", Channels: []string{"a", "b"}}), seen, quiet)
	k.put(&sse.Question{ID: "slow", Body: []byte(`{"count":["a"]}`)})
	<-k.answering
	k.put(&sse.Question{ID: "withdraw", Body: []byte(`{"assign":{"selection":{"User":"alice"},"change":{"Unsubscribe":["a"]}}}`)})
	publish(t, h, "secret", "a")
	if _, err := h.Publish(t.Context(), sse.Event{Channels: []string{"b"}, Data: "the last", End: sse.EndAfter}); err != nil {
		t.Fatal(err)
	}
	<-s.done // since all that it has left has ended
	close(k.goOn)
	if got := string(seen.bytes()); strings.Contains(got, "secret") || !strings.Contains(got, "the last") {
		t.Errorf("it was sent %s", seen.bytes())
	}
}

// A client asked for its session, had no answer for long, and went back to the node that
// had it. When that node heard the question at last, it ended the stream.
func TestClusterLateTake(t *testing.T) {
	k := newSharedKeeper(1)
	h := newHubOn(t, k, sse.Options{})
	publishN(t, h, 1, "first")
	s := subscribeWith(t, h, sse.SubscribeOptions{Connection: "c", User: "alice", Session: time.Minute, Channels: []string{"a"}})
	k.put(&sse.Question{ID: "late", Body: []byte(`{"take":{"connection":"c","user":"alice"}}`), Late: true})
	if _, err := h.Count(t.Context(), "a"); err != nil { // which is asked behind it
		t.Fatal(err)
	}
	if infos := connections(t, h, sse.Selection{}, "", 10); len(infos) != 1 || !slices.Equal(s.Channels(), []string{"a"}) {
		t.Errorf("the streams are %+v", infos)
	}
}

// A client moved to another node, and its first one did not notice for a while. What it
// then had changed was changed on its dead stream, and it was told that all was well.
func TestClusterChangeOfTheLiving(t *testing.T) {
	for range 20 { // answers come in any order
		here, there := twoNodes(t)
		o := sse.SubscribeOptions{Connection: "c", User: "alice", Session: time.Minute, Channels: []string{"a"}}
		subscribeWith(t, there, o)
		o.Start = sse.After(at(here, 1))
		live := subscribeWith(t, here, o)
		session, err := there.Knows(t.Context(), "c", "alice")
		if err != nil {
			t.Fatal(err)
		}
		got, err := there.Change(t.Context(), "c", "alice", sse.Change{Subscribe: []string{"b"}, Session: session})
		if err != nil || !slices.Equal(got, []string{"a", "b"}) || !slices.Equal(live.Channels(), got) {
			t.Fatalf("the client was told %q, %v, and has %q", got, err, live.Channels())
		}
	}
}

// A channel was taken away from a connection, and its client had it again by coming to
// another node without a position.
func TestClusterWithdrawn(t *testing.T) {
	here, there := twoNodes(t)
	o := sse.SubscribeOptions{Connection: "c", User: "alice", Session: time.Minute, Channels: []string{"a", "secret"}}
	subscribeWith(t, there, o)
	if _, err := there.Assign(t.Context(), "c", sse.Change{Unsubscribe: []string{"secret"}}); err != nil {
		t.Fatal(err)
	}
	if s := subscribeWith(t, here, o); !slices.Equal(s.Channels(), []string{"a"}) {
		t.Errorf("it has %q", s.Channels())
	}
}

// A node that was about to stop had a session handed to it, took nobody in, and took the
// session with it.
func TestClusterDrainingTakesNothing(t *testing.T) {
	here, there := twoNodes(t)
	o := sse.SubscribeOptions{Connection: "c", User: "alice", Session: time.Minute, Channels: []string{"a", "secret"}}
	subscribeWith(t, there, o)
	if _, err := there.Assign(t.Context(), "c", sse.Change{Unsubscribe: []string{"secret"}}); err != nil {
		t.Fatal(err)
	}
	here.Drain(t.Context(), 0)
	if _, err := here.Subscribe(t.Context(), o); err == nil {
		t.Fatal("a hub that drains takes a stream")
	}
	if s := subscribeWith(t, there, o); !slices.Equal(s.Channels(), []string{"a"}) {
		t.Errorf("back where it was it has %q", s.Channels())
	}
}

// A deafKeeper never gets to the newest entry.
type deafKeeper struct{ *keeper }

func (k *deafKeeper) Tail(ctx context.Context, _ sse.Position, _ func([]sse.Entry)) error {
	<-ctx.Done()
	return ctx.Err()
}

// A hub that could not follow its record, as the way to that had broken just then, left
// those who came waiting for as long as they liked, where they had better go elsewhere.
func TestHubStartsForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHubOn(t, &deafKeeper{newKeeper()}, sse.Options{})
		if _, err := h.Subscribe(t.Context(), sse.SubscribeOptions{Channels: []string{"a"}}); !errors.Is(err, sse.ErrUnavailable) {
			t.Errorf("Subscribe: %v", err)
		}
		if _, err := h.Publish(t.Context(), sse.Event{Channels: []string{"a"}}); !errors.Is(err, sse.ErrUnavailable) {
			t.Errorf("Publish: %v", err)
		}
	})
}
