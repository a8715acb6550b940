package sse_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
)

// stressChannels returns the channels of the event that is published at seq. As
// one goroutine publishes, it is known beforehand.
func stressChannels(seq uint64, names []string) []string {
	n := uint64(len(names))
	h := seq * 0x9e3779b97f4a7c15 >> 32
	if h%7 == 0 {
		return []string{names[h%n], names[(h+1)%n]}
	}
	return []string{names[h%n]}
}

// TestPullStress holds the reasoning at head, dirty and hole against the
// narrowest windows: subscribers pull without a pause, and without the cost of
// a stream, while events are published and evicted as fast as can be.
func TestPullStress(t *testing.T) {
	few, many := []string{"a", "b", "c"}, manyChannels(3*sse.MaxDirty)
	for _, tc := range []struct {
		name    string
		options sse.Options
		names   []string
		size    int
		evict   bool
		events  uint64
	}{
		{"all kept, few channels", sse.Options{HistoryCount: 1e6}, few, 1, false, 12_000},
		{"all kept, many channels", sse.Options{HistoryCount: 1e6}, many, 1, false, 6_000},
		{"evicted in segments", sse.Options{HistoryCount: 1}, few, 12_000, false, 3_000},
		{"all evicted at times", sse.Options{}, few, 6_000, true, 3_000},
		{"budget, many channels", sse.Options{Memory: 150_000}, many, 1_000, false, 5_000},
	} {
		t.Run(tc.name, func(t *testing.T) {
			h := newHub(t, tc.options)
			var issued atomic.Uint64
			over := make(chan struct{})
			var running sync.WaitGroup
			for i, items := range [][]string{{"*"}, tc.names[:2], tc.names[1:2], {tc.names[0], tc.names[2] + "*"}} {
				p := &puller{
					t: t, name: fmt.Sprint(items), sub: subscribe(t, h, sse.Latest(), items...), names: tc.names,
					issued: &issued, over: over, rand: rand.New(rand.NewPCG(uint64(i), 0)), excused: make(map[string]uint64),
				}
				for seq := uint64(1); seq <= tc.events; seq++ {
					on := slices.DeleteFunc(stressChannels(seq, tc.names), func(name string) bool { return !covered(items, name) })
					p.want = append(p.want, on)
				}
				running.Go(p.run)
			}
			if tc.evict {
				running.Go(func() {
					for r := rand.New(rand.NewPCG(99, 0)); ; {
						select {
						case <-over:
							return
						default:
							yield(r, 200)
							h.EvictAll()
						}
					}
				})
			}
			for seq := uint64(1); seq <= tc.events; seq++ {
				issued.Store(seq)
				publish(t, h, strings.Repeat("x", tc.size), stressChannels(seq, tc.names)...)
				if seq%16 == 0 {
					runtime.Gosched()
				}
			}
			close(over)
			running.Wait()
		})
	}
}

// A puller is a subscriber that knows what it is to get.
type puller struct {
	t       *testing.T
	name    string
	sub     *sse.Subscriber
	names   []string
	issued  *atomic.Uint64
	over    chan struct{}
	rand    *rand.Rand
	want    [][]string        // by seq-1, the channels by which it gets the event
	excused map[string]uint64 // events of the channel up to it may be missing
	next    uint64            // index in want of the first event that was neither got nor excused
	failed  bool
}

func (p *puller) run() {
	for {
		final := false
		select {
		case <-p.over:
			final = true
		default:
		}
		frames, _, _ := p.sub.Pull()
		p.receive(frames)
		if final && len(frames) == 0 {
			p.advance(uint64(len(p.want)) + 1)
			return
		}
		if p.rand.IntN(4) == 0 {
			yield(p.rand, 8)
		}
	}
}

func (p *puller) receive(frames []byte) {
	for len(frames) > 0 {
		end := bytes.Index(frames, []byte("\n\n")) + 2
		frame := frames[:end]
		frames = frames[end:]
		if bytes.Contains(frame, []byte("event: hub:reset")) {
			for _, r := range blocks(p.t, frame)[0].state(p.t).Reset {
				for _, name := range p.names {
					if sse.Covers(r.Channel, name) {
						p.excused[name] = p.issued.Load()
					}
				}
			}
			continue
		}
		frame, isCursor := bytes.CutPrefix(frame, []byte(": keepalive\n"))
		line, _, _ := bytes.Cut(frame, []byte("\n"))
		_, digits, _ := bytes.Cut(line, []byte("."))
		seq, err := strconv.ParseUint(string(digits), 10, 64)
		if err != nil {
			p.failf("frame %.60q", frame)
			return
		}
		if isCursor {
			p.advance(seq + 1)
			continue
		}
		p.advance(seq)
		if p.next+1 != seq || len(p.want[seq-1]) == 0 {
			p.failf("got %d again, or not in order, or not its own", seq)
		}
		p.next = seq
	}
}

// advance moves to an event; those before it must have been excused.
func (p *puller) advance(seq uint64) {
	for p.next+1 < seq {
		for _, name := range p.want[p.next] {
			if p.excused[name] < p.next+1 {
				p.failf("%d on %s is lost without a reset: next is %d", p.next+1, name, seq)
				return
			}
		}
		p.next++
	}
}

func (p *puller) failf(format string, args ...any) {
	if !p.failed {
		p.failed = true
		p.t.Errorf(p.name+": "+format, args...)
	}
}
