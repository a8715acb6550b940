package sse_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// A world is a hub with many publishers and clients at once.
type world struct {
	t       *testing.T
	seed    uint64
	hub     *sse.Hub
	names   []string
	keepAll bool             // nothing is evicted, so nobody may be reset
	bursts  int              // events that are published together
	chaos   bool             // evict everything now and then
	trim    func(seq uint64) // gives up a part of the record; may be nil
	stream  sse.StreamOptions

	cuts   atomic.Uint64 // streams that were ended because they were slow
	issued atomic.Uint64 // no event beyond it was published so far
	over   chan struct{} // closed when the last one was published
	mu     sync.Mutex    // guards what follows
	moved  *sync.Cond    // issued has grown, or it is over
	record map[uint64]sse.Event
}

func (w *world) rand(who uint64) *rand.Rand { return rand.New(rand.NewPCG(w.seed, who)) }

func (w *world) isOver() bool {
	select {
	case <-w.over:
		return true
	default:
		return false
	}
}

// await returns when that much was issued, or it is over.
func (w *world) await(seq uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.issued.Load() < seq && !w.isOver() {
		w.moved.Wait()
	}
}

func (w *world) publish(events []sse.Event) {
	w.issued.Add(uint64(len(events)))
	receipts, err := w.hub.Publish(w.t.Context(), events...)
	if err != nil {
		w.t.Errorf("Publish: %v", err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, r := range receipts {
		w.record[r.Position.Seq] = events[i]
	}
	w.moved.Broadcast()
}

// publisher publishes n events.
func (w *world) publisher(id uint64, n int) {
	r := w.rand(1000 + id)
	for done := 0; done < n; {
		events := make([]sse.Event, 1+r.IntN(1+r.IntN(w.bursts)))
		for i := range events {
			events[i].Channels = w.pick(r, 1+max(0, r.IntN(6)-3))
			events[i].Data = fmt.Sprintf("%d/%d:%s", id, done+i, strings.Repeat("x", r.IntN(1+r.IntN(2000))))
		}
		w.publish(events)
		done += len(events)
		yield(r, 20)
		if r.IntN(8) == 0 { // let some be caught up, so that they must be woken
			time.Sleep(time.Duration(r.IntN(int(200 * time.Microsecond))))
		}
	}
}

func (w *world) pick(r *rand.Rand, n int) (names []string) {
	for len(names) < min(n, len(w.names)) {
		if name := w.names[r.IntN(len(w.names))]; !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}

// shake evicts everything at bad moments.
func (w *world) shake() {
	r := w.rand(2000)
	for !w.isOver() {
		w.await(w.issued.Load() + uint64(1+r.IntN(200)))
		yield(r, 50)
		w.hub.EvictAll()
		if w.trim != nil && r.IntN(4) == 0 {
			w.trim(w.issued.Load() - uint64(r.IntN(300)))
		}
	}
}

func yield(r *rand.Rand, most int) {
	for range r.IntN(most) {
		runtime.Gosched()
	}
}

// A modelClient is a browser: it knows what it received, as bytes, and
// reconnects with the last id among it.
type modelClient struct {
	*world
	id    int
	items []string
	rand  *rand.Rand
	// cutAfter and stallAfter are how many more bytes it takes before it drops
	// the connection, or stops reading for a while.
	cutAfter, stallAfter int

	mu       sync.Mutex // guards what follows
	stream   []byte     // the part of a frame that was received so far
	opened   bool       // a frame of this stream was received
	last     sse.Position
	base     uint64            // the events behind it are owed
	from     map[string]uint64 // those of the channel behind it, for one that began with the earliest
	received map[uint64]string // data by seq
	excuses  []excuse
	resets   int
	// lagResets are those for lag, of channels.
	lagResets int
	finished  context.CancelFunc
	failures  []string
}

// An excuse is a reset: events on the channels from..to may be missing.
type excuse struct {
	items    []string
	from, to uint64
}

var errGone = errors.New("the client is gone")

func (c *modelClient) failLocked(format string, args ...any) {
	c.failures = append(c.failures, fmt.Sprintf("client %d (%v): ", c.id, c.items)+fmt.Sprintf(format, args...))
}

// run keeps the client connected until it has everything.
func (c *modelClient) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c.finished = cancel
	go func() {
		select {
		case <-c.over:
			c.mu.Lock()
			defer c.mu.Unlock()
			c.finishLocked()
		case <-ctx.Done():
		}
	}()
	for ctx.Err() == nil {
		if c.rand.IntN(3) == 0 {
			c.await(c.issued.Load() + uint64(c.rand.IntN(100))) // away
		}
		c.connect(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if owed := c.owedLocked(); len(owed) > 0 {
		c.failLocked("lost without a reset, or never sent: %v; received up to %v, excuses %v", owed[:min(len(owed), 20)], c.last, c.excuses)
	}
}

func (c *modelClient) connect(ctx context.Context) {
	start := sse.Latest()
	switch {
	case c.last.Epoch != "":
		start = sse.After(c.last)
	case c.id%3 == 0:
		start = sse.Earliest()
	}
	s, err := c.hub.Subscribe(ctx, sse.SubscribeOptions{Channels: c.items, Start: start, ReplayLimit: -1})
	if err != nil {
		if ctx.Err() == nil {
			c.t.Errorf("Subscribe: %v", err)
		}
		c.finished()
		return
	}
	yield(c.rand, 30)
	if c.rand.IntN(30) == 0 {
		s.Leave()
		return
	}
	c.mu.Lock()
	c.stream, c.opened = nil, false
	c.mu.Unlock()
	c.cutAfter, c.stallAfter = math.MaxInt, math.MaxInt
	if !c.isOver() {
		if c.rand.IntN(5) > 0 {
			c.cutAfter = c.rand.IntN(100_000)
		}
		c.stallAfter = c.rand.IntN(100_000)
	}
	streamCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	if c.rand.IntN(4) == 0 && !c.isOver() {
		go func() {
			c.await(c.issued.Load() + 150)
			cancel()
		}()
	}
	keepalive := time.Duration(-1)
	if c.id%2 == 0 {
		keepalive = time.Duration(1+c.rand.IntN(300)) * time.Microsecond // their ids move the client's
	}
	options := c.world.stream
	options.Keepalive = keepalive
	end := s.Stream(streamCtx, &recorder{onWrite: c.write, onFlush: c.flush}, sse.NewTuning(options))
	if end.Reason == sse.CloseSlow && options.Slow == sse.SlowDisconnect {
		c.cuts.Add(1)
		return
	}
	if end.Reason != sse.CloseClient || (end.Err != nil && !errors.Is(end.Err, errGone)) {
		c.t.Errorf("client %d: the stream ends with %+v", c.id, end)
	}
}

func (c *modelClient) write(p []byte) (int, error) {
	yield(c.rand, 10)
	if c.stallAfter -= len(p); c.stallAfter < 0 {
		c.stallAfter = 50_000 + c.rand.IntN(100_000)
		c.await(c.issued.Load() + uint64(c.rand.IntN(300)))
	}
	var err error
	if c.cutAfter < len(p) && !c.isOver() {
		p, err = p[:c.cutAfter], errGone
	}
	c.cutAfter -= len(p)

	c.mu.Lock()
	defer c.mu.Unlock()
	received, rest, bad := splitBlocks(append(c.stream, p...))
	c.stream = slices.Clone(rest)
	if bad != nil {
		c.failLocked("%v", bad)
	}
	for _, b := range received {
		c.receiveLocked(b)
	}
	return len(p), err
}

func (c *modelClient) flush() error {
	yield(c.rand, 10)
	if c.isOver() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.finishLocked()
	}
	return nil
}

// finishLocked ends the client when it has everything.
func (c *modelClient) finishLocked() {
	if c.opened && len(c.owedLocked()) == 0 {
		c.finished()
	}
}

func (c *modelClient) receiveLocked(b block) {
	if !c.opened && !b.is("hub:open") {
		c.failLocked("the first frame is %v", b)
	}
	switch {
	case b.is("hub:open"):
		c.openedLocked(b)
	case b.is("hub:reset"):
		c.resetLocked(b.state(c.t).Reset, b.id.Seq)
		if c.world.stream.Slow == sse.SlowDisconnect {
			c.failLocked("it is reset while it is connected")
		}
	case b.is("hub:close"):
		return
	case !b.is("") && b.id.Seq <= c.last.Seq:
		c.failLocked("event %v after %v", b.id, c.last)
	case !b.is(""):
		c.eventLocked(b)
	case b.id.IsZero():
		return // a keepalive
	}
	if b.id.Seq < c.last.Seq || b.id.Seq > c.issued.Load() {
		c.failLocked("id %v of %q after %v", b.id, b.msg.Event, c.last)
	}
	c.last = b.id
}

func (c *modelClient) openedLocked(b block) {
	told := b.state(c.t)
	switch {
	case c.last.Epoch != "":
		c.resetLocked(told.Reset, b.id.Seq)
		if len(told.Reset) == 0 && b.id != c.last {
			c.failLocked("hub:open has the id %v after %v", b.id, c.last)
		}
	case c.id%3 != 0:
		if c.base = b.id.Seq; told.Resume != sse.ResumeFresh {
			c.failLocked("hub:open says %v to one who is fresh", told)
		}
	case told.Resume != sse.ResumeComplete:
		c.failLocked("hub:open says %v to one who wants the earliest", told)
	case !c.keepAll:
		// What is kept is not known here, but it is the newest.
		for _, name := range c.names {
			c.from[name] = c.issued.Load()
		}
	}
	c.opened = true
}

func (c *modelClient) resetLocked(resets []sse.Reset, seq uint64) {
	if len(resets) == 0 {
		return
	}
	e := excuse{from: c.last.Seq, to: c.issued.Load()}
	for _, r := range resets {
		e.items = append(e.items, r.Channel)
		lags := r.Reason == sse.ResetLimit && c.world.stream.Lag > 0
		if lags {
			c.lagResets++
		}
		if !slices.Contains(c.items, r.Channel) || (r.Reason != sse.ResetExpired && !lags) {
			c.failLocked("reset of %v at %d", r, seq)
		}
	}
	c.excuses = append(c.excuses, e)
	if c.resets++; c.keepAll && (c.world.stream.Lag == 0 || c.world.stream.Slow == sse.SlowDisconnect) {
		c.failLocked("reset of %v although everything is kept", resets)
	}
}

func (c *modelClient) eventLocked(b block) {
	c.received[b.id.Seq] = b.msg.Data
	// From its first event on, a channel that began with the earliest is whole.
	// An event on several may have come by any of them.
	if by := c.interestLocked(b.id.Seq); len(by) == 1 {
		c.from[by[0]] = min(c.from[by[0]], b.id.Seq-1)
	}
}

// interestLocked returns the client's channels of the event, none if its
// publisher has not recorded it yet.
func (c *modelClient) interestLocked(seq uint64) (names []string) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	for _, name := range c.record[seq].Channels {
		if covered(c.items, name) {
			names = append(names, name)
		}
	}
	return names
}

// owedLocked returns the events that the client neither received nor was told
// to have missed.
func (c *modelClient) owedLocked() (owed []uint64) {
	c.world.mu.Lock()
	defer c.world.mu.Unlock()
	for seq := c.base + 1; seq <= uint64(len(c.record)); seq++ {
		if _, ok := c.received[seq]; !ok && slices.ContainsFunc(c.record[seq].Channels, func(name string) bool { return c.owesLocked(seq, name) }) {
			owed = append(owed, seq)
		}
	}
	return owed
}

func (c *modelClient) owesLocked(seq uint64, name string) bool {
	if !covered(c.items, name) || seq <= c.from[name] {
		return false
	}
	return !slices.ContainsFunc(c.excuses, func(e excuse) bool {
		return e.from < seq && seq <= e.to && covered(e.items, name)
	})
}

// checkLocked compares what was received with the record.
func (c *modelClient) checkLocked() {
	for seq, data := range c.received {
		if len(c.interestLocked(seq)) == 0 {
			c.failLocked("got %d on %v", seq, c.record[seq].Channels)
		}
		if data != c.record[seq].Data {
			c.failLocked("got %.20q at %d, want %.20q", data, seq, c.record[seq].Data)
		}
	}
}

// TestModel holds promises 1 and 2 with everything at once: many publishers and
// clients that stall, drop mid-frame and resume; each client gets every event
// once and in order, or a reset that names its channel.
//
// To dig for rare interleavings, run it often:
//
//	go test -race -run 'TestModel$' -count=100 ./sse
func TestModel(t *testing.T) {
	for _, tc := range []struct {
		name    string
		options sse.Options
		names   int
		bursts  int
		keepAll bool
		chaos   bool
		broker  sse.Broker
	}{
		{"one channel, all kept", sse.Options{}, 1, 3, true, false, sse.NewMemoryBroker()},
		{"few channels, all kept", sse.Options{}, 5, 3, true, false, sse.NewMemoryBroker()},
		{"many channels, all kept", sse.Options{}, 90, 80, true, false, sse.NewMemoryBroker()},
		{"few channels, evicted", sse.Options{HistoryCount: 1, Memory: 40 << 10}, 5, 5, false, true, sse.NewMemoryBroker()},
		{"many channels, evicted", sse.Options{HistoryCount: 3, Memory: 200 << 10}, 90, 80, false, true, sse.NewMemoryBroker()},
		{"many channels, forgotten", sse.Options{HistoryCount: 1, Memory: 20 << 10}, 90, 80, false, true, sse.NewMemoryBroker()},
		{"few channels, evicted, recorded", sse.Options{Memory: 40 << 10}, 5, 5, true, true, newKeeper()},
		{"many channels, evicted, recorded", sse.Options{Memory: 200 << 10}, 90, 80, true, true, newKeeper()},
		{"many channels, forgotten, recorded", sse.Options{Memory: 20 << 10}, 90, 80, true, true, newKeeper()},
		{"many channels, forgotten, trimmed", sse.Options{Memory: 20 << 10}, 90, 80, false, true, newKeeper()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, newHubOn(t, tc.broker, tc.options), tc.names)
			w.keepAll, w.bursts, w.chaos = tc.keepAll, tc.bursts, tc.chaos
			if k, ok := tc.broker.(*keeper); ok && !tc.keepAll {
				w.trim = k.trim
			}
			w.run()
		})
	}
}

func newWorld(t *testing.T, h *sse.Hub, names int) *world {
	w := &world{t: t, seed: rand.Uint64(), hub: h, over: make(chan struct{}), record: make(map[uint64]sse.Event)}
	w.moved = sync.NewCond(&w.mu)
	for i := range names {
		w.names = append(w.names, fmt.Sprintf("%c%c%d", 'a'+rune(i%3), 'a'+rune(i%5), i))
	}
	return w
}

func (w *world) run() {
	const publishers, events, clients = 3, 250, 8
	ctx, cancel := context.WithTimeout(w.t.Context(), 30*time.Second)
	defer cancel()
	var running, publishing sync.WaitGroup
	var all []*modelClient
	for i := range clients {
		c := &modelClient{world: w, id: i, rand: w.rand(uint64(i)), received: make(map[uint64]string), from: make(map[string]uint64)}
		c.chooseItems()
		all = append(all, c)
		running.Go(func() { c.run(ctx) })
	}
	for i := range publishers {
		publishing.Go(func() { w.publisher(uint64(i), events) })
	}
	if w.chaos {
		running.Go(w.shake)
	}
	publishing.Wait()
	w.mu.Lock()
	close(w.over)
	w.moved.Broadcast()
	w.mu.Unlock()
	running.Wait()

	resets, lagged := 0, 0
	for _, c := range all {
		resets += c.resets
		lagged += c.lagResets
		c.checkLocked() // it has ended
		for i, failure := range c.failures {
			if i == 5 {
				break
			}
			w.t.Errorf("seed %d: %s", w.seed, failure)
		}
	}
	if ctx.Err() != nil {
		w.t.Errorf("seed %d: not everybody has everything after 30 s", w.seed)
	}
	w.t.Logf("seed %d: %d events, %d resets, %d for lag, %d cut", w.seed, len(w.record), resets, lagged, w.cuts.Load())
}

// chooseItems gives the client names and patterns, of which some cover others
// for some clients. Only those that cover the others are reset, so these are
// what the model knows.
func (c *modelClient) chooseItems() {
	if c.id == 1 {
		c.items = []string{"*"}
		return
	}
	for range 1 + c.rand.IntN(4) {
		name := c.names[c.rand.IntN(len(c.names))]
		if c.rand.IntN(2) == 0 {
			name = name[:c.rand.IntN(len(name))] + "*"
		}
		c.items = append(c.items, name)
	}
}
