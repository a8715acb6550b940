package sse_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// TestPatternsAtRandom: one stream, names and prefixes that overlap, no start in
// the past, memory that forgets. An event is owed while everything since it was
// published covers its channel; it comes once, or a reset names what it came by.
func TestPatternsAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	failed := 0
	for i := range 400 {
		for _, kept := range []bool{false, true} {
			if why := patternsAtRandom(t, seed+uint64(i), kept); why != "" {
				if failed++; failed <= 3 {
					t.Errorf("seed %d, record %v: %s", seed+uint64(i), kept, why)
				}
			}
		}
	}
	t.Logf("%d of 800 failed", failed)
}

func patternsAtRandom(t *testing.T, seed uint64, kept bool) string {
	r := rand.New(rand.NewPCG(seed, 1))
	h := newHub(t, sse.Options{})
	if kept {
		h = newHubOn(t, newKeeper(), sse.Options{})
	}
	items := []string{"p*", "a*", "a1", "a2", "b", "p7", "p1*", "*"}
	set := []string{"b"}
	s := connect(t, h, sse.Latest(), "b")
	owed := map[uint64]string{}
	var log []string
	note := func(f string, a ...any) { log = append(log, fmt.Sprintf(f, a...)) }
	bad := ""
	fail := func(f string, a ...any) {
		if bad == "" {
			bad = fmt.Sprintf(f, a...) + "\n" + strings.Join(log, "\n")
		}
	}
	receive := func(stream []byte) {
		for _, b := range blocksOf(stream) {
			switch b.msg.Event {
			case "hub:reset":
				var st state
				_ = json.Unmarshal([]byte(b.msg.Data), &st)
				note("reset %v", st)
				for seq, ch := range owed {
					if slices.ContainsFunc(st.Reset, func(x sse.Reset) bool { return sse.Covers(x.Channel, ch) }) {
						owed[seq] = "?" + ch
					}
				}
			case "message":
				seq := b.id.Seq
				note("got %d", seq)
				if owed[seq] == "" {
					fail("%d came and must not", seq)
				}
				delete(owed, seq)
			default:
				note("%s %s", b.msg.Event, b.msg.Data)
			}
		}
	}
	for range 150 {
		switch n := r.IntN(20); {
		case n < 8:
			for range 1 + r.IntN(3)*r.IntN(25) {
				ch := []string{"a1", "a2", "b", fmt.Sprintf("p%d", r.IntN(60)), fmt.Sprintf("p%d", r.IntN(60))}[r.IntN(5)]
				seq := publish(t, h, "x", ch).Seq
				if covered(set, ch) {
					owed[seq] = ch
				}
				note("publish %d on %s", seq, ch)
			}
		case n < 12:
			c := sse.Change{}
			for range 1 + r.IntN(2) {
				item := items[r.IntN(len(items))]
				if slices.Contains(set, item) {
					c.Unsubscribe = append(c.Unsubscribe, item)
				} else {
					c.Subscribe = append(c.Subscribe, item)
				}
			}
			named, err := h.Change(t.Context(), "c", "", c)
			if err != nil {
				continue
			}
			note("change %v at %d", c, h.Stats().Position.Seq)
			set = slices.Clone(named)
			maps.DeleteFunc(owed, func(_ uint64, ch string) bool { return !covered(set, strings.TrimLeft(ch, "?")) })
		case n < 14:
			note("forget")
			h.SetOptions(sse.Options{Memory: 1})
			h.SetOptions(sse.Options{})
		case n < 15 && kept:
			note("evict")
			h.EvictAll()
		default:
			for range r.IntN(4) {
				frames, _, closing := s.Pull()
				if closing != "" {
					fail("closes %s", closing)
				}
				receive(frames)
			}
			if r.IntN(3) == 0 {
				receive(s.KeepaliveFrame())
			}
		}
	}
	receive(drain(s))
	for seq, ch := range owed {
		if !strings.HasPrefix(ch, "?") {
			fail("%d on %s did not come", seq, ch)
		}
	}
	s.Leave()
	h.Close()
	return bad
}

func blocksOf(stream []byte) []block {
	found, _, _ := splitBlocks(stream)
	return found
}
