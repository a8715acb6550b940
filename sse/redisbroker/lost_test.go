package redisbroker_test

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

// Whatever takes the record, or a part of it, those who follow it are told, whether somebody
// publishes or not.
func TestLostRecord(t *testing.T) {
	s := redistest.Start(t)
	for i, c := range []struct {
		name string
		lose func(key func(string) string)
	}{
		{"FLUSHALL", func(func(string) string) { s.Do("FLUSHALL") }},
		{"all keys", func(key func(string) string) { s.Do("DEL", key("meta"), key("record"), key("ids"), key("ended")) }},
		{"what is known of the record", func(key func(string) string) { s.Do("DEL", key("meta")) }},
		{"the stream", func(key func(string) string) { s.Do("UNLINK", key("record")) }},
		{"the oldest entry", func(key func(string) string) { s.Do("XTRIM", key("record"), "MAXLEN", "2") }},
		{"the stream, which is full of something else", func(key func(string) string) {
			s.Do("DEL", key("record"))
			s.Do("XADD", key("record"), "99999999999999-1", "foreign", "1")
		}},
	} {
		for _, somebody := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, publish %v", c.name, somebody), func(t *testing.T) {
				hub := fmt.Sprintf("%d-%v", i, somebody)
				n := start(t, s, redisbroker.Options{Hub: hub})
				before := n.publish(named("x", "1"), on("a", "2"), on("a", "3"))[2]
				n.received("3")
				c.lose(func(key string) string { return "{sse:" + hub + "}:" + key })
				if somebody {
					if after := n.publish(named("x", "anew"))[0]; after.Epoch == before.Epoch || after.Seq != 1 {
						t.Errorf("%s follows %s", after, before)
					}
				}
				n.endsGone()
				if after := n.state(); after.Newest.Epoch == before.Epoch || n.Health() != nil {
					t.Errorf("the state is %+v, Health is %v", after, n.Health())
				}
				if _, err := n.Read(context.Background(), before, []string{"*"}, 100); !errors.Is(err, sse.ErrGone) {
					t.Errorf("Read behind what was: %v", err)
				}
			})
		}
	}
}

// The first entry of another epoch wakes those who wait for the next of the old one; nobody has to look.
func TestAnotherEpochWakes(t *testing.T) {
	s := redistest.Start(t)
	n := startTuned(t, s, redisbroker.Options{}, redisbroker.Tuning{Block: time.Hour})
	before := n.publish(on("a", "1"), on("a", "2"), on("a", "3"))[2]
	n.received("3")
	s.Do("FLUSHALL")
	if after := n.publish(on("a", "anew"))[0]; after.Epoch == before.Epoch {
		t.Fatalf("%s follows %s", after, before)
	}
	n.endsGone()
}

// A node that is far behind, because it was away while others published, is told when what comes
// next was given up.
func TestTrimmedBeyondATail(t *testing.T) {
	s := redistest.Start(t)
	n := start(t, s, redisbroker.Options{MaxEvents: 5})
	at := n.publish(on("a", "1"))[0]
	n.received("1")
	for i := range 20 {
		n.publish(on("a", strconv.Itoa(i)))
	}
	err := n.Tail(context.Background(), at, func([]sse.Entry) { t.Error("a tail is handed something") })
	if !errors.Is(err, sse.ErrGone) {
		t.Errorf("Tail from what was given up: %v", err)
	}
	n.stays()
}

// One array is larger than what is kept: who follows it live has missed the rest.
func TestArrayBeyondTheBounds(t *testing.T) {
	n := start(t, redistest.Start(t), redisbroker.Options{MaxEvents: 5})
	events := make([]sse.Event, 50)
	for i := range events {
		events[i] = on("a", strconv.Itoa(i))
	}
	n.publish(events...)
	n.endsGone()
	if n.keeps("45", "46", "47", "48", "49"); n.Health() != nil {
		t.Errorf("Health: %v", n.Health())
	}
}

// Keys that belong to somebody else are left alone, and the reason is told.
func TestForeignKeys(t *testing.T) {
	s := redistest.Start(t)
	s.Do("SET", "{sse:taken}:meta", "something else")
	if b, err := redisbroker.Open(redisbroker.Options{URL: s.URL(), Hub: "taken"}); err == nil {
		b.Close()
		t.Error("a record opens whose key is a string")
	}
	if got := s.Do("GET", "{sse:taken}:meta"); got != "something else" {
		t.Errorf("the foreign key has become %q", got)
	}
	s.Do("HSET", "{sse:newer}:meta", "format", "2", "epoch", "abc")
	b, err := redisbroker.Open(redisbroker.Options{URL: s.URL(), Hub: "newer"})
	if err == nil {
		b.Close()
		t.Error("a record of another format opens")
	}
	t.Log(err)

	n := start(t, s, redisbroker.Options{Hub: "ids"})
	n.publish(named("x", "1"))
	s.Do("DEL", "{sse:ids}:ids")
	s.Do("SET", "{sse:ids}:ids", "something else")
	n.refuses(on("a", "with"), named("y", "no"))
	n.keeps("1") // nothing was half done
}
