package boltbroker

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/caddy-sse/caddy-sse/sse"
)

// The index finds what a search through all entries finds, whatever comes and
// goes.
func TestIndex(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	x := newIndex()
	var entries []*sse.Entry
	oldest := uint64(0)
	for seq := uint64(1); seq <= 20_000; seq++ {
		e := &sse.Entry{Position: sse.Position{Seq: seq}}
		for range 1 + r.IntN(3) {
			name := string(rune('a'+r.IntN(3))) + strings.Repeat("x", r.IntN(3)) + string(rune('a'+r.IntN(26))) + string(rune('a'+r.IntN(26)))
			if !slices.Contains(e.Event.Channels, name) {
				e.Event.Channels = append(e.Event.Channels, name)
			}
		}
		entries = append(entries, e)
		x.add(e)
		if r.IntN(500) == 0 {
			through := oldest + uint64(r.IntN(int(seq-oldest)+1))
			for name := range x.channels {
				x.cut(name, through)
			}
			oldest = through
		}
		if r.IntN(200) > 0 {
			continue
		}
		after := oldest + uint64(r.IntN(int(seq-oldest)+1))
		for _, channels := range [][]string{{"aab"}, {"a*"}, {"b*", "bx*", "cab", "none"}, {"cx*", "aa*"}, {"zzz*"}} {
			f := newFilter(channels)
			var want []uint64
			for _, e := range entries[after:] {
				s, _ := parseEntry(keyOf(e.Position.Seq), appendEntry(nil, keyOf(e.Position.Seq), e))
				if f.matches(&s) {
					want = append(want, e.Position.Seq)
				}
			}
			lists, ok := x.lists(after, channels)
			if !ok {
				continue
			}
			if got := merge(lists, 50); !slices.Equal(got, want[:min(50, len(want))]) {
				t.Fatalf("%q behind %d: %v, want %v", channels, after, got, want)
			}
		}
	}
	for name := range x.channels {
		x.cut(name, 20_000)
	}
	if len(x.channels) != 0 || len(x.names.groups) != 0 {
		t.Error("something is left of an index without entries")
	}
}

// A count from the zero position, which stands before whatever is the oldest, was
// refused when old events were given up while it counted.
func TestCountWhileTrimming(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := open(t, file(t), Options{})
		publish(t, b, "1", "2", "3", "4")
		for _, item := range []string{"*", "a*", "a"} {
			c, err := b.beginCount(sse.Position{}, []string{item}, 100)
			if err != nil {
				t.Fatal(err)
			}
			publish(t, b, "5", "6", "7", "8")
			b.SetOptions(Options{MaxEvents: 2}) // which begins to trim
			synctest.Wait()
			if err := b.countItem(t.Context(), c, item); err != nil {
				t.Errorf("%s: %v", item, err)
			}
			b.SetOptions(Options{})
		}
	})
}
