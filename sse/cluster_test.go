package sse_test

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A sharedKeeper is a keeper whose record several hubs follow. Who asks waits for as
// many answers as there are nodes.
type sharedKeeper struct {
	*keeper
	nodes int

	asking sync.Mutex // guards what follows
	asked  int
	waits  map[string]chan []byte // for answers, by the question's id
	marks  map[string]bool
}

func newSharedKeeper(nodes int) *sharedKeeper {
	return &sharedKeeper{keeper: newKeeper(), nodes: nodes, waits: make(map[string]chan []byte), marks: make(map[string]bool)}
}

func (k *sharedKeeper) Ask(ctx context.Context, question []byte) (answers [][]byte, err error) {
	k.asking.Lock()
	k.asked++
	id, wait := strconv.Itoa(k.asked), make(chan []byte, k.nodes)
	k.waits[id] = wait
	k.asking.Unlock()
	k.put(&sse.Question{ID: id, Body: question})
	for range k.nodes {
		select {
		case a := <-wait:
			answers = append(answers, a)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	return answers, nil
}

// put delivers a question.
func (k *sharedKeeper) put(q *sse.Question) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, deliver := range k.tails {
		(*deliver)([]sse.Entry{{Question: q}})
	}
}

func (k *sharedKeeper) Mark(_ context.Context, connection string) error {
	k.asking.Lock()
	defer k.asking.Unlock()
	k.marks[connection] = true
	return nil
}

func (k *sharedKeeper) Marked(_ context.Context, connection string) (bool, error) {
	k.asking.Lock()
	defer k.asking.Unlock()
	return k.marks[connection], nil
}

func (k *sharedKeeper) Answer(_ context.Context, q sse.Question, answer []byte) error {
	k.asking.Lock()
	defer k.asking.Unlock()
	k.waits[q.ID] <- answer
	return nil
}

// twoNodes returns two hubs that share a record.
func twoNodes(t *testing.T) (here, there *sse.Hub) {
	t.Helper()
	k := newSharedKeeper(2)
	here, there = newHubOn(t, k, sse.Options{}), newHubOn(t, k, sse.Options{})
	publishN(t, here, 1, "first")
	return here, there
}

// TestClusterKick promises that a stream can be ended by way of any node.
func TestClusterKick(t *testing.T) {
	here, there := twoNodes(t)
	s := startStream(t, subscribeWith(t, there, sse.SubscribeOptions{Connection: "c", User: "alice", Channels: []string{"a"}}), &recorder{}, quiet)
	if n := kick(t, here, sse.Selection{User: "alice"}); n != 1 {
		t.Errorf("%d were ended", n)
	}
	<-s.done
	if end := s.end; end.Reason != sse.CloseKicked {
		t.Errorf("it ended %+v", end)
	}
}

// TestClusterChange promises that what a stream gets can be changed by way of any
// node, by its client and from inside, with the same answers and errors.
func TestClusterChange(t *testing.T) {
	here, there := twoNodes(t)
	subscribeWith(t, there, sse.SubscribeOptions{Connection: "c", Session: time.Minute, Channels: []string{"a"}})
	if got := changed(t, here, "c", sse.Change{Subscribe: []string{"b"}, Session: knows(t, here, "c")}); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("the client has %q", got)
	}
	got, err := here.Assign(t.Context(), "c", sse.Change{Subscribe: []string{"d"}, Unsubscribe: []string{"a"}})
	if err != nil || !slices.Equal(got, []string{"b", "d"}) {
		t.Errorf("then %q, %v", got, err)
	}
	if _, err := here.Change(t.Context(), "c", "", sse.Change{Subscribe: []string{"a"}}); !errors.Is(err, sse.ErrWithdrawn) {
		t.Errorf("what was withdrawn: %v", err)
	}
	if _, err := here.Change(t.Context(), "other", "", sse.Change{Subscribe: []string{"a"}}); !errors.Is(err, sse.ErrNoConnection) {
		t.Errorf("another connection: %v", err)
	}
	if n, err := here.AssignAll(t.Context(), sse.Selection{Channel: "d"}, sse.Change{Subscribe: []string{"e"}}); n != 1 || err != nil {
		t.Errorf("%d were changed, %v", n, err)
	}
}

// TestClusterConnections promises that each node lists the streams of all, in pages.
func TestClusterConnections(t *testing.T) {
	here, there := twoNodes(t)
	for i := range 6 {
		subscribeWith(t, []*sse.Hub{here, there}[i%2], sse.SubscribeOptions{Connection: strconv.Itoa(i), Channels: []string{"a"}})
	}
	var names []string
	for _, info := range connections(t, here, sse.Selection{Channel: "a"}, "1", 3) {
		names = append(names, info.Connection)
	}
	if !slices.Equal(names, []string{"2", "3", "4"}) {
		t.Errorf("behind 1 come %q", names)
	}
	counts, err := here.Count(t.Context(), "a", "b")
	if err != nil || !slices.Equal(counts, []int{6, 0}) {
		t.Errorf("there are %v subscribers, %v", counts, err)
	}
}

// TestClusterSession promises that a client that comes back to another node gets what
// its stream was changed to, and that its stream there ends, as it does on one node.
func TestClusterSession(t *testing.T) {
	here, there := twoNodes(t)
	options := sse.SubscribeOptions{Connection: "c", User: "alice", Session: time.Minute, Channels: []string{"a"}}
	old := startStream(t, subscribeWith(t, there, options), &recorder{}, quiet)
	if _, err := there.Change(t.Context(), "c", "alice", sse.Change{Subscribe: []string{"b"}, Unsubscribe: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	options.Start = sse.After(at(here, 1))
	s := subscribeWith(t, here, options)
	if got := s.Channels(); !slices.Equal(got, []string{"b"}) {
		t.Errorf("it has %q", got)
	}
	<-old.done
	if end := old.end; end.Reason != sse.CloseReplaced {
		t.Errorf("the one before ended %+v", end)
	}
	if infos := connections(t, there, sse.Selection{}, "", 10); len(infos) != 1 {
		t.Errorf("there are %d streams", len(infos))
	}
	options.User = "mallory"
	options.Session = time.Minute
	if _, err := there.Subscribe(t.Context(), options); !errors.Is(err, sse.ErrConnection) {
		t.Errorf("another user: %v", err)
	}
}

// TestHubLost promises that a hub tells when its record is gone, and that another one
// on the same broker tells its clients what they may have missed.
func TestHubLost(t *testing.T) {
	k := newKeeper()
	h := newHubOn(t, k, sse.Options{})
	publishN(t, h, 3, "a")
	h.EvictAll()
	close(k.lost)
	<-h.Lost()
	if err := h.Health(); err == nil {
		t.Error("it is said to be well")
	}
}
