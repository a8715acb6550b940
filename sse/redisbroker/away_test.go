package redisbroker_test

import (
	"context"
	"errors"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// A Redis that does not even refuse: publishes fail, Health says so, tails wait and go on, and what
// it was sent meanwhile is not kept later, as its publisher was told.
func TestSilentRedis(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, s, redisbroker.Options{Timeout: 200 * time.Millisecond})
	n.publishes(on("a", "1")) // a slow machine may be silent itself
	n.received("1")
	s.Suspend()
	n.refuses(on("a", "never"))
	err := n.refuses(named("x", "2"))
	if n.Health() == nil {
		t.Error("Health is good when a publish has just failed")
	}
	if again := n.refuses(named("x", "2")); !strings.Contains(again.Error(), "does not answer") {
		t.Errorf("the first publish: %v; the next: %v", err, again)
	}
	n.stays()
	s.Resume()
	n.healthy()
	positions := n.publishes(named("x", "2"))
	n.publishes(named("y", "3"))
	n.received("3")
	n.stays()
	n.keeps("1", "2", "3")
	if positions[0].Seq != 2 {
		t.Errorf("the event that was refused twice is at %s", positions[0])
	}
}

// Of a publish whose answer is lost nobody knows; a repeat by ID finds it, once, for those who tail as well.
func TestLostAnswer(t *testing.T) {
	s := redistest.Start(t)
	link := redistest.NewLink(t, s)
	n := start(t, nil, redisbroker.Options{URL: "unix://" + link.Socket})
	other := start(t, s, redisbroker.Options{}) // has a way of its own
	n.publish(on("a", "1"))
	n.received("1")
	link.Deafen()
	done := make(chan error)
	go func() {
		_, err := n.Publish(context.Background(), []sse.Event{named("x", "2"), named("y", "3")})
		done <- err
	}()
	where := other.received("3") // Redis has it
	link.Cut()
	if err := <-done; !errors.Is(err, sse.ErrUnavailable) {
		t.Errorf("Publish: %v", err)
	}
	n.ill()
	link.Heal()
	positions := n.publishes(named("x", "2"), named("y", "3"))
	if positions[0] != where[1] || positions[1] != where[2] {
		t.Errorf("what is at %v is at %v when it is repeated", where[1:], positions)
	}
	n.received("3")
	n.stays()
	n.healthy()
	n.keeps("1", "2", "3")
}

// A tail whose connection is dead without an error is not healthy, though nobody publishes.
func TestSilentTail(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, s, redisbroker.Options{Timeout: 200 * time.Millisecond})
	n.healthy()
	s.Suspend()
	n.ill()
	if err := n.Health(); !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("Health: %v", err)
	}
	n.stays()
	s.Resume()
	n.healthy()
	n.publishes(named("x", "1"))
	n.received("1")
	n.stays()
}

// Publishers do not queue up for a silent Redis.
func TestNobodyWaitsTwice(t *testing.T) {
	s := redistest.Start(t)
	n := startTuned(t, s, redisbroker.Options{Timeout: 200 * time.Millisecond}, redisbroker.Tuning{Block: time.Hour})
	n.publishes(on("a", "1"))
	s.Suspend()
	n.refuses(on("a", "no"))
	for range 100 {
		n.refuses(on("a", "no"))
	}
	s.Resume()
	n.healthy()
	n.publishes(on("a", "2"))
	// Whoever waits for it in vain connects again.
	if made, err := strconv.Atoi(s.Info("stats", "total_connections_received")); err != nil || made > 40 {
		t.Errorf("%d connections were made, %v", made, err)
	}
	n.keeps("1", "2")
}

// A broker closes though Redis is silent.
func TestCloseWhileSilent(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, s, redisbroker.Options{Timeout: 200 * time.Millisecond})
	s.Suspend()
	if err := n.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	n.wait("the tail ends", n.ended)
}

// A Redis without memory refuses; nothing is kept by halves, and it is found out by itself when it
// takes events again.
func TestOutOfMemory(t *testing.T) {
	s := redistest.Start(t, "--maxmemory-policy", "noeviction")
	n := start(t, s, redisbroker.Options{})
	n.publish(on("a", "1"))
	s.Do("CONFIG", "SET", "maxmemory", "1")
	if err := n.refuses(named("x", "2"), on("b", "3")); !strings.Contains(err.Error(), "OOM") {
		t.Errorf("Publish: %v", err)
	}
	if n.Health() == nil {
		t.Error("Health is good when a publish has just failed")
	}
	n.keeps("1")
	s.Do("CONFIG", "SET", "maxmemory", "0")
	n.healthy()
	if at := n.publish(named("x", "2"))[0]; at.Seq != 2 {
		t.Errorf("the next event is at %s", at)
	}
	n.received("2")
	n.stays()
}

// A replica whose master is away refuses with another word.
func TestMasterDown(t *testing.T) {
	s := redistest.Start(t, "--replica-serve-stale-data", "no")
	n := start(t, s, redisbroker.Options{})
	n.publish(on("a", "1"))
	s.Do("REPLICAOF", "127.0.0.1", "1")
	if err := n.refuses(on("a", "no")); !strings.Contains(err.Error(), "MASTERDOWN") {
		t.Errorf("Publish: %v", err)
	}
	n.ill()
	s.Do("REPLICAOF", "NO", "ONE")
	n.publishes(on("a", "2"))
	n.healthy()
}

// A Redis that cannot save refuses writes therefore.
func TestCannotSave(t *testing.T) {
	s := redistest.Start(t, "--save", "3600 1")
	n := start(t, s, redisbroker.Options{})
	n.publish(on("a", "1"))
	if err := os.RemoveAll(s.Data); err != nil {
		t.Fatal(err)
	}
	s.Do("BGSAVE")
	s.Await("persistence", "rdb_last_bgsave_status", "err")
	if err := n.refuses(on("a", "no")); !strings.Contains(err.Error(), "MISCONF") {
		t.Errorf("Publish: %v", err)
	}
	n.ill()
	s.Do("CONFIG", "SET", "stop-writes-on-bgsave-error", "no")
	n.healthy()
	n.publish(on("a", "2"))
	n.keeps("1", "2")
}

// While Redis loads its data it refuses; then the record goes on.
func TestLoading(t *testing.T) {
	s := redistest.Start(t, "--rdbcompression", "no", "--loading-process-events-interval-bytes", "1024")
	n := start(t, s, redisbroker.Options{AfterRestart: redisbroker.GoOn})
	for i := range 50 { // which take time to load
		s.Do("SET", strings.Repeat("k", i+1), strings.Repeat("v", 2048))
	}
	n.publish(on("a", "1"))
	n.received("1")
	s.Do("SAVE")
	s.Kill()
	n.ill()
	s.RestartUntil("Server initialized", "--key-load-delay", "20000")
	n.wait("a publish is refused because Redis loads", func() bool {
		err := n.refuses(on("a", "no"))
		return strings.Contains(err.Error(), "LOADING")
	})
	n.stays()
	n.publishes(on("a", "2"))
	n.received("2")
	n.healthy()
	n.stays()
	n.keeps("1", "2")
}
