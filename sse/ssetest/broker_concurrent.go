package ssetest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A crowd publishes, reads and trims at once.
type crowd struct {
	t      *trial
	broker sse.Broker
	done   chan struct{} // closed when nobody publishes any more

	mu    sync.Mutex // guards what follows
	truth map[uint64]sse.Event
	runs  []run
	errs  []error
}

// A run is what somebody saw of some channels from one position to another,
// without being told that anything is gone.
type run struct {
	from     uint64 // the oldest seq that it can have begun behind
	surely   uint64 // and the newest
	to       uint64
	channels []string
	entries  []sse.Entry
}

func concurrent(t *trial) {
	t.openTrimmed()
	r := t.random()
	c := &crowd{t: t, broker: t.broker, done: make(chan struct{}), truth: make(map[uint64]sse.Event)}
	var publishers, readers sync.WaitGroup
	for n := range 4 {
		r := rand.New(rand.NewPCG(r.Uint64(), 0))
		publishers.Go(func() { c.publish(r, n) })
	}
	for _, channels := range [][]string{{"*"}, {"shared"}, {"p0", "p2"}, {"p*", "shared"}} {
		r := rand.New(rand.NewPCG(r.Uint64(), 0))
		readers.Go(func() { c.read(r, channels) })
	}
	go func() {
		publishers.Wait()
		close(c.done)
	}()
	c.tail(r)
	readers.Wait()
	for _, err := range c.errs {
		t.Error(err)
	}
	c.check()
}

// openTrimmed opens a record that is trimmed soon, if that can be.
func (t *trial) openTrimmed() {
	t.Helper()
	if t.config.Promise >= KeepsUntilClose {
		if broker, err := t.config.Open(t.place, Retention{Entries: 100}); err == nil {
			t.broker = broker
			t.live = t.follow(t.state().Newest)
			return
		}
	}
	t.open(Retention{})
}

func (c *crowd) complain(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

func (c *crowd) publish(r *rand.Rand, publisher int) {
	data := 0
	for range lasting(100, 2000) {
		events := make([]sse.Event, 1+r.IntN(8))
		for i := range events {
			events[i] = on(fmt.Sprint("p", publisher), fmt.Sprintf("%d/%d", publisher, data))
			if r.IntN(3) == 0 {
				events[i].Channels = append(events[i].Channels, "shared")
			}
			data++
		}
		positions, err := c.broker.Publish(c.t.Context(), events)
		if err != nil {
			c.complain("Publish: %w", err)
			return
		}
		c.mu.Lock()
		for i, p := range positions {
			c.truth[p.Seq] = events[i]
		}
		c.mu.Unlock()
		if set := c.t.config.SetRetention; publisher == 0 && set != nil && r.IntN(4) == 0 {
			if err := set(c.broker, Retention{Entries: 20 + r.IntN(200)}); err != nil && !errors.Is(err, errors.ErrUnsupported) {
				c.complain("SetRetention: %w", err)
			}
		}
	}
}

// read pages through the record until nobody publishes any more, and begins
// anew when it is told that what it needs is gone.
func (c *crowd) read(r *rand.Rand, channels []string) {
	seen := run{channels: channels}
	var after sse.Position
	for {
		last := isClosed(c.done)
		before, page, head, err := c.page(after, channels, r.IntN(50))
		if errors.Is(err, sse.ErrGone) && !after.IsZero() {
			c.keep(seen)
			seen, after = run{channels: channels}, sse.Position{}
			continue
		}
		if err != nil {
			c.complain("Read(%s, %q): %w", after, channels, err)
			return
		}
		if after.IsZero() {
			seen.from, seen.surely = before.Oldest.Seq, head.Oldest.Seq
		}
		after = page.Through
		seen.to = after.Seq
		seen.entries = append(seen.entries, page.Entries...)
		switch {
		case last && after == head.Newest:
			c.keep(seen)
			return
		case !last && r.IntN(50) == 0:
			c.keep(seen)
			seen, after = run{channels: channels}, sse.Position{}
		case after == head.Newest:
			time.Sleep(100 * time.Microsecond) // leaves the publishers some time
		}
	}
}

// page reads one page, and the state before and after that. It counts too.
func (c *crowd) page(after sse.Position, channels []string, bytes int) (before sse.State, page sse.Page, head sse.State, err error) {
	ctx := context.Background()
	if before, err = c.broker.State(ctx); err != nil {
		return before, page, head, err
	}
	page, err = c.broker.Read(ctx, after, channels, bytes)
	_, countErr := c.broker.Count(ctx, after, channels, math.MaxInt)
	head, stateErr := c.broker.State(ctx)
	switch {
	case stateErr != nil:
		return before, page, head, stateErr
	case countErr != nil && !errors.Is(countErr, sse.ErrGone):
		return before, page, head, countErr
	case errors.Is(err, sse.ErrGone) || errors.Is(countErr, sse.ErrGone):
		if head.Oldest.Seq <= after.Seq {
			// It must not match ErrGone, upon which the reader would go on.
			return before, page, head, fmt.Errorf("gone, but the record is kept behind %s: Read: %v, Count: %v", head.Oldest, err, countErr)
		}
		return before, page, head, err
	case err == nil:
		err = checkPage(page, after, channels, bytes, before.Newest, head.Newest)
	}
	return before, page, head, err
}

// tail follows the record from its oldest entry, again and again.
func (c *crowd) tail(r *rand.Rand) {
	t := c.t
	for last := false; !last; {
		last = isClosed(c.done)
		after := t.state().Oldest
		f := t.tail(after)
		target := after.Seq + r.Uint64N(300)
		t.wait("the tail goes on", func() bool {
			return isClosed(f.done) || (isClosed(f.signed) && f.position().Seq >= target) || isClosed(c.done)
		})
		attached := isClosed(f.signed)
		err := f.stop()
		if errors.Is(err, sse.ErrGone) && t.state().Oldest.Seq <= f.position().Seq {
			t.Errorf("Tail from %s ends at %s, which is kept: %v", after, f.position(), err)
		}
		if !errors.Is(err, sse.ErrGone) && !errors.Is(err, context.Canceled) {
			t.Errorf("Tail from %s: %v", after, err)
		}
		if attached || len(f.entries()) > 0 {
			c.keep(run{from: after.Seq, surely: after.Seq, to: f.position().Seq, channels: []string{"*"}, entries: f.entries()})
		}
	}
}

func (c *crowd) keep(seen run) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.runs = append(c.runs, seen)
}

// check holds what everybody saw to what was published.
func (c *crowd) check() {
	t := c.t
	var all []sse.Entry
	for seq := uint64(1); seq <= uint64(len(c.truth)); seq++ {
		e, found := c.truth[seq]
		if !found {
			t.Fatalf("nobody published the entry at %d of %d", seq, len(c.truth))
		}
		all = append(all, sse.Entry{Position: t.at(seq), Event: e})
	}
	next := make(map[string]int)
	for _, e := range all {
		name := e.Event.Channels[0]
		if want := fmt.Sprintf("%s/%d", name[1:], next[name]); e.Event.Data != want {
			t.Fatalf("the entry at %s is %q where %q follows: publishes that came one after the other are not in order", e.Position, e.Event.Data, want)
		}
		next[name]++
	}
	for _, seen := range c.runs {
		c.checkRun(seen, all)
	}
	t.Logf("%d events, %d runs", len(all), len(c.runs))
}

func (c *crowd) checkRun(seen run, all []sse.Entry) {
	t := c.t
	all = all[:min(seen.to, uint64(len(all)))]
	most := filter(all, seen.from, seen.channels)
	least := len(filter(all, seen.surely, seen.channels))
	if n := len(seen.entries); n < least || n > len(most) {
		t.Fatalf("%d entries of %q were seen from %d to %d, not %d to %d", n, seen.channels, seen.from, seen.to, least, len(most))
	}
	want := most[len(most)-len(seen.entries):]
	for i, e := range seen.entries {
		if e.Position != want[i].Position || !sameEvent(e.Event, want[i].Event) {
			t.Fatalf("what was seen of %q behind %d has\n%swhere was published\n%s", seen.channels, seen.from, list(seen.entries[i:i+1]), list(want[i:i+1]))
		}
	}
}
