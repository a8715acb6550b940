package redisbroker_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// Nodes that publish at once have one order.
func TestTwoNodes(t *testing.T) {
	s := redistest.Start(t)
	nodes := []*node{start(t, s, redisbroker.Options{}), start(t, s, redisbroker.Options{})}
	var wg sync.WaitGroup
	for i, n := range nodes {
		for publisher := range 4 {
			wg.Go(func() {
				for k := range 50 {
					if _, err := n.Publish(context.Background(), []sse.Event{on("a", fmt.Sprint(i, publisher, k)), named(fmt.Sprint("both", k), fmt.Sprint("once", k))}); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	wg.Wait()
	nodes[0].publish(on("a", "last"))
	for _, n := range nodes {
		n.received("last")
	}
	first, second := nodes[0].got, nodes[1].got
	if len(first) != 2*4*50+50+1 || len(second) != len(first) {
		t.Fatalf("the tails were handed %d and %d entries", len(first), len(second))
	}
	for i := range first {
		if first[i].Position != second[i].Position || first[i].Event.Data != second[i].Event.Data {
			t.Fatalf("entry %d is %q at %s for one node, %q at %s for the other", i, first[i].Event.Data, first[i].Position, second[i].Event.Data, second[i].Position)
		}
	}
}

// A large array is one publish, too, as is its repeat.
func TestLargeArray(t *testing.T) {
	n := start(t, redistest.Start(t), redisbroker.Options{})
	events := make([]sse.Event, 10_000)
	for i := range events {
		events[i] = named(strconv.Itoa(i), strconv.Itoa(i))
	}
	positions := n.publish(events...)
	for i, again := range n.publish(events...) {
		if again != positions[i] || again.Seq != uint64(i+1) {
			t.Fatalf("event %d is at %s, and at %s when it is repeated", i, positions[i], again)
		}
	}
	n.received("9999")
}

// What is too old goes, though nobody publishes.
func TestAge(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, s, redisbroker.Options{MaxAge: time.Hour})
	end := on("over", "3")
	end.End = sse.EndAfter
	n.publish(on("a", "1"), on("a", "2"), end)
	last := n.publish(on("a", "4"))[0]
	n.keeps("1", "2", "3", "4")
	n.SetOptions(redisbroker.Options{MaxAge: time.Nanosecond})
	n.wait("everything is given up", func() bool { return n.state().Oldest == last })
	if state := n.state(); len(state.Ended) > 0 || state.Newest != last {
		t.Errorf("the state is %+v", state)
	}
}

// What is young stays: a record that was written over some hours loses what is older than the bound,
// however many entries that are.
func TestAgeKeepsTheYoung(t *testing.T) {
	s := redistest.Start(t)
	for i, c := range []struct{ entries, old int }{{1, 0}, {1, 1}, {2, 1}, {10, 0}, {10, 1}, {10, 4}, {10, 9}, {10, 10}} {
		hub := strconv.Itoa(i)
		forge(t, s, hub, c.entries, func(seq int) time.Duration { return time.Duration(c.old-seq)*time.Hour + 90*time.Minute })
		n := start(t, s, redisbroker.Options{Hub: hub, MaxAge: time.Hour})
		want := uint64(c.old)
		n.wait("the old entries are given up", func() bool { return n.state().Oldest.Seq >= want })
		if state := n.state(); state.Oldest.Seq != want || state.Newest != (sse.Position{Epoch: "forged", Seq: uint64(c.entries)}) {
			t.Errorf("of %d entries %d are old; the state is %+v", c.entries, c.old, state)
		}
		if got := len(n.data()); got != c.entries-c.old {
			t.Errorf("of %d entries %d are old; %d are kept", c.entries, c.old, got)
		}
		n.publish(on("a", "goes on"))
		n.received("goes on")
	}
}

// forge writes a record as the scripts do, with entries of an age.
func forge(t *testing.T, s *redistest.Server, hub string, entries int, age func(seq int) time.Duration) {
	t.Helper()
	key := func(name string) string { return "{sse:" + hub + "}:" + name }
	at := func(seq int) string { return strconv.FormatInt(time.Now().Add(-age(seq)).UnixMicro(), 10) }
	for seq := 1; seq <= entries; seq++ {
		s.Do("XADD", key("record"), fmt.Sprint("1000-", seq), "t", at(seq), "b", strconv.Itoa(100*seq), "c", "a", "d", strconv.Itoa(seq))
	}
	s.Do("HSET", key("meta"), "format", "1", "epoch", "forged", "life", "1000", "head", strconv.Itoa(entries), "oldest", "0",
		"total", strconv.Itoa(100*entries), "base", "0", "time", at(entries), "aged", "0", "since", "0",
		"replid", s.Info("replication", "master_replid"), "run", s.Info("server", "run_id"))
}

// An ID is forgotten some time after its window.
func TestWindow(t *testing.T) {
	s := redistest.Start(t)
	n := startTuned(t, s, redisbroker.Options{}, redisbroker.Tuning{Window: 20 * time.Millisecond})
	first := n.publish(named("x", "1"))[0]
	n.wait("the ID is forgotten", func() bool {
		return n.publish(named("x", "again"))[0] != first
	})
	n.wait("those before are dropped", func() bool {
		n.publish(named(fmt.Sprint(n.state().Newest.Seq), "more"))
		younger, _ := strconv.Atoi(s.Do("HLEN", "{sse:default}:ids"))
		older, _ := strconv.Atoi(s.Do("HLEN", "{sse:default}:ids:older"))
		return n.state().Newest.Seq > 20 && uint64(younger+older) < n.state().Newest.Seq/2
	})
}

// More IDs than can be remembered are refused, rather than that one is forgotten early.
func TestTooManyIDs(t *testing.T) {
	n := startTuned(t, redistest.Start(t), redisbroker.Options{}, redisbroker.Tuning{Repeats: 3})
	at := n.publish(named("1", "1"), named("2", "2"))
	if err := n.refuses(named("3", "3"), named("4", "4")); !strings.Contains(err.Error(), "2 ids") {
		t.Errorf("Publish: %v", err)
	}
	if again := n.publish(named("2", "2"), named("1", "1"), on("a", "without"), named("3", "3"), named("3", "3")); again[0] != at[1] || again[1] != at[0] {
		t.Errorf("repeats are at %v", again)
	}
	n.refuses(named("5", "5"))
	n.keeps("1", "2", "without", "3")
	if n.Health() != nil {
		t.Errorf("Health: %v", n.Health())
	}
}

// Of more ended channels than are remembered the first begins anew.
func TestTooManyEnds(t *testing.T) {
	n := startTuned(t, redistest.Start(t), redisbroker.Options{}, redisbroker.Tuning{Ended: 3})
	for i := range 5 {
		n.publish(sse.Event{Channels: []string{fmt.Sprint("c", i)}, End: sse.EndOnly})
	}
	if got := n.state().Ended; len(got) != 3 || got[0] != (sse.Ended{Channel: "c2", Seq: 3}) || got[2] != (sse.Ended{Channel: "c4", Seq: 5}) {
		t.Errorf("ended are %v", got)
	}
	n.publish(on("c1", "anew"))
	var ended *sse.EndedError
	if _, err := n.Publish(context.Background(), []sse.Event{on("c2", "no")}); !errors.As(err, &ended) {
		t.Errorf("Publish: %v", err)
	}
}

// One channel among many is found, however far apart its events are, and counted.
func TestRareChannel(t *testing.T) {
	n := start(t, redistest.Start(t), redisbroker.Options{})
	for i := range 20 {
		events := make([]sse.Event, 1500)
		for k := range events {
			events[k] = on("busy", strings.Repeat("x", 200))
		}
		events[700] = on("rare", strconv.Itoa(i))
		n.publish(events...)
	}
	var found []string
	pages := 0
	for after := (sse.Position{}); after != n.state().Newest; pages++ {
		page, err := n.Read(context.Background(), after, []string{"rare"}, 1000)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range page.Entries {
			found = append(found, e.Event.Data)
		}
		after = page.Through
	}
	if len(found) != 20 || found[19] != "19" || pages > 4 {
		t.Errorf("found %q on %d pages", found, pages)
	}
	if got, err := n.Count(context.Background(), sse.Position{}, []string{"rare"}, 1000); got != 20 || err != nil {
		t.Errorf("Count: %d, %v", got, err)
	}
	if got, err := n.Count(context.Background(), sse.Position{}, []string{"ra*", "busy"}, 7); got != 7 || err != nil {
		t.Errorf("Count: %d, %v", got, err)
	}
}
