package redisbroker_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// A Redis that comes back empty begins another epoch, and those who followed the old one are
// told.
func TestRestartEmpty(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, s, redisbroker.Options{AfterRestart: redisbroker.GoOn})
	before := n.publish(on("a", "1"), on("a", "2"))[1]
	n.received("2")
	s.Kill()
	n.ill()
	n.refuses(on("a", "lost"))
	n.stays()
	s.Restart()
	n.endsGone()
	n.healthy()
	after := n.publishes(on("a", "first of another life"))[0]
	if after.Epoch == before.Epoch || after.Seq != 1 {
		t.Errorf("the first position after %s is %s", before, after)
	}
	n.keeps("first of another life")
}

// synced are the settings of a Redis that loses nothing that it answered.
var synced = []string{"--appendonly", "yes", "--appendfsync", "always"}

// A Redis that syncs before it answers loses nothing, and an operator who says so has a record
// that goes on.
func TestRestartGoesOn(t *testing.T) {
	s := redistest.Start(t, synced...)
	n := start(t, s, redisbroker.Options{AfterRestart: redisbroker.GoOn})
	over := on("over", "2")
	over.End = sse.EndAfter
	before := n.publish(named("x", "1"), over)
	n.received("2")
	s.Kill()
	n.ill()
	s.Restart()
	n.healthy()
	if again := n.publishes(named("x", "again"))[0]; again != before[0] {
		t.Errorf("an ID that was at %s is at %s", before[0], again)
	}
	if _, err := n.Publish(context.Background(), []sse.Event{on("over", "no")}); err == nil {
		t.Error("a channel that has ended takes an event after a restart")
	}
	if next := n.publish(on("a", "3"))[0]; next.Epoch != before[1].Epoch || next.Seq != 3 {
		t.Errorf("%s is followed by %s", before[1], next)
	}
	n.received("3")
	n.stays()
	n.keeps("1", "2", "3")
}

// Without that word, nobody can know what a restart has lost.
func TestRestartBeginsAnew(t *testing.T) {
	s := redistest.Start(t, synced...)
	n := start(t, s, redisbroker.Options{})
	before := n.publish(on("a", "1"))[0]
	n.received("1")
	s.Stop()
	s.Restart()
	// Even a publish that is the first to come finds that out.
	after := n.publishes(on("a", "anew"))[0]
	if after.Epoch == before.Epoch {
		t.Errorf("%s follows %s, though Redis was restarted in between", after, before)
	}
	n.endsGone()
	n.keeps("anew")
}

// A Redis that went back behind what a node has seen begins another epoch, whatever an operator
// has said of it.
func TestRestartLosesTheNewest(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, s, redisbroker.Options{AfterRestart: redisbroker.GoOn})
	n.publish(on("a", "1"), on("a", "2"), on("a", "3"))
	s.Do("SAVE")
	before := n.publish(on("a", "4"), on("a", "5"))[1]
	n.received("5")
	s.Kill()
	n.ill()
	s.Restart()
	n.endsGone()
	n.healthy()
	if after := n.publish(on("a", "anew"))[0]; after.Epoch == before.Epoch || after.Seq != 1 {
		t.Errorf("the first position after the record went back behind %s is %s", before, after)
	}
}

// The same number for another event is noticed as well.
func TestAnotherEntryAtThePosition(t *testing.T) {
	n := start(t, redistest.Start(t), redisbroker.Options{})
	at := n.publish(on("a", "1"), on("a", "2"))[1]
	n.received("2")
	n.mu.Lock()
	when := n.got[1].Time
	n.mu.Unlock()
	newest, err := n.LookFrom(context.Background(), at, when)
	if err != nil || newest != at {
		t.Fatalf("a look from where the record is: %v, %v", newest, err)
	}
	newest, err = n.LookFrom(context.Background(), at, when.Add(time.Microsecond))
	if err != nil || newest.Epoch == at.Epoch {
		t.Fatalf("a look from where another entry was: %v, %v", newest, err)
	}
	n.endsGone()
}

// A replica that takes over and lacks what came last begins another epoch, before the first
// publish takes a number that somebody has seen.
func TestFailover(t *testing.T) {
	master := redistest.StartTCP(t)
	replica := redistest.StartTCP(t, "--replicaof", "127.0.0.1", portOf(master))
	replica.Await("replication", "master_link_status", "up")

	link := filepath.Join(master.Dir, "link.sock") // stands for a name that leads to the master
	if err := os.Symlink(master.Socket, link); err != nil {
		t.Fatal(err)
	}
	n := start(t, nil, redisbroker.Options{URL: "unix://" + link})
	n.publish(on("a", "1"), on("a", "2"), on("a", "3"))
	master.Do("WAIT", "1", "0")
	replica.Do("REPLICAOF", "NO", "ONE") // it hears nothing more
	before := n.publish(on("a", "4"), on("a", "5"))[1]
	n.received("5")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(replica.Socket, link); err != nil {
		t.Fatal(err)
	}
	other := start(t, replica, redisbroker.Options{}) // knows nothing of what was
	after := other.publish(on("a", "4 of another life"))[0]
	if after.Epoch == before.Epoch {
		t.Errorf("%s is given to another event, though it was seen", after)
	}
	master.Kill()
	n.endsGone()
	n.healthy()
	if got := n.publishes(on("a", "last"))[0]; got.Epoch != after.Epoch {
		t.Errorf("two nodes are at %s and %s", got, after)
	}
	other.received("last")
}

// A name may come to lead to another master while the connections to the old one stay open, which is a
// replica now; and nobody publishes.
func TestMasterElsewhere(t *testing.T) {
	old := redistest.StartTCP(t)
	next := redistest.StartTCP(t, "--replicaof", "127.0.0.1", portOf(old))
	next.Await("replication", "master_link_status", "up")
	link := filepath.Join(old.Dir, "link.sock")
	if err := os.Symlink(old.Socket, link); err != nil {
		t.Fatal(err)
	}
	n := start(t, nil, redisbroker.Options{URL: "unix://" + link})
	n.publish(on("a", "1"))
	n.received("1")
	next.Do("REPLICAOF", "NO", "ONE")
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(next.Socket, link); err != nil {
		t.Fatal(err)
	}
	old.Do("REPLICAOF", "127.0.0.1", portOf(next))
	n.endsGone()
	n.healthy()
	other := start(t, next, redisbroker.Options{})
	n.publish(on("a", "2"))
	other.received("2")
}

// That a replica comes or goes changes nothing.
func TestReplicaComesAndGoes(t *testing.T) {
	master := redistest.StartTCP(t, "--repl-backlog-ttl", "1")
	n := start(t, master, redisbroker.Options{})
	before := n.publish(on("a", "1"))[0]
	id := func() string { return master.Info("replication", "master_replid") }
	first := id()
	replica := redistest.StartTCP(t, "--replicaof", "127.0.0.1", portOf(master))
	replica.Await("replication", "master_link_status", "up")
	second := id()
	if second == first {
		t.Fatal("the replication id did not change with the first replica; this test shows nothing")
	}
	if after := n.publish(on("a", "2"))[0]; after.Epoch != before.Epoch {
		t.Errorf("%s follows %s, but only a replica came", after, before)
	}
	replica.Kill()
	wait(t, "the replication id changes when the last replica stays away", func() bool { return id() != second })
	if after := n.publish(on("a", "3"))[0]; after.Epoch != before.Epoch {
		t.Errorf("%s follows %s, but only a replica went", after, before)
	}
	n.received("3")
	n.stays()
}

// A master that was a replica in between has perhaps lost what came last, though it is the same
// process.
func TestMasterThatWasAReplica(t *testing.T) {
	s := redistest.StartTCP(t)
	n := start(t, s, redisbroker.Options{})
	before := n.publish(on("a", "1"))[0]
	n.received("1")
	s.Do("REPLICAOF", "127.0.0.1", "1") // nobody is there
	if err := n.refuses(on("a", "no")); !strings.Contains(err.Error(), "READONLY") {
		t.Errorf("Publish to a replica: %v", err)
	}
	n.ill()
	s.Do("REPLICAOF", "NO", "ONE")
	if after := n.publishes(on("a", "anew"))[0]; after.Epoch == before.Epoch {
		t.Errorf("%s follows %s, though it was a replica in between", after, before)
	}
	n.endsGone()
	n.healthy()
}
