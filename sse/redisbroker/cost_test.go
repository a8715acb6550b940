package redisbroker_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// A publish is one command, whatever it holds.
func TestOneRoundTrip(t *testing.T) {
	s := redistest.Start(t)
	n := startTuned(t, s, redisbroker.Options{}, redisbroker.Tuning{Block: time.Hour}) // it never looks
	n.publish(on("a", "0"))                                                            // sends the script
	n.received("0")
	s.Do("CONFIG", "RESETSTAT")
	for i := range 100 {
		end := sse.Event{Channels: []string{fmt.Sprint("over", i)}, End: sse.EndOnly}
		n.publish(named(fmt.Sprint(i), "1"), on("b", "2"), end)
	}
	n.publish(on("a", "last"))
	n.received("last")
	calls := s.Calls()
	if calls["evalsha"] != 101 || calls["eval"] != 0 || calls["multi"] != 0 || calls["script|load"] != 0 {
		t.Errorf("101 publishes took more than as many scripts: %v", calls)
	}
	if calls["xread"] > 102 {
		t.Errorf("101 publishes made %d XREADs", calls["xread"])
	}
}

// All tails of a node wait by one command.
func TestOneBlockedCommand(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, s, redisbroker.Options{})
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		attached := make(chan struct{})
		sign := sync.OnceFunc(func() { close(attached) })
		go n.Tail(ctx, n.state().Newest, func([]sse.Entry) { sign() })
		<-attached
	}
	s.Await("clients", "blocked_clients", "1")
	second := start(t, s, redisbroker.Options{})
	s.Await("clients", "blocked_clients", "2")
	second.works()
	n.received("from 0")
}
