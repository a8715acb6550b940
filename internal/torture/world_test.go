package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

const (
	publishers  = 6
	subscribers = 40
	// patience is how long anything may take that should happen at once. It is
	// generous because the race detector and two cores are slow.
	patience = 60 * time.Second
)

// A world is a server, or several that share a record, and all who use it in
// one round.
type world struct {
	t        *testing.T
	scenario scenario
	history  *ssetest.History
	random   *rand.Rand // of the goroutine of the test
	nodes    []string   // base URLs, each of which will do
	clients  *clients
	channels []string
	counts   counts

	admin, port int
	file        string // of the record
	process     *caddytest.Process

	// quiet is closed when the chaos is over and everybody may catch up, with
	// the target.
	quiet  chan struct{}
	target sse.Position

	mu   sync.Mutex // guards jobs
	jobs []string   // channels that end, the newest last
}

// counts are what was done to everybody.
type counts struct {
	kills, stops, reloads, drops, stalls, repeats atomic.Int64
}

// String returns the counts on one line.
func (c *counts) String() string {
	return fmt.Sprintf("kills: %d, stops: %d, reloads: %d; drops: %d, stalls: %d; repeated publishes: %d",
		c.kills.Load(), c.stops.Load(), c.reloads.Load(), c.drops.Load(), c.stalls.Load(), c.repeats.Load())
}

func newWorld(t *testing.T, s scenario, random *rand.Rand) *world {
	w := &world{
		t: t, scenario: s, random: random,
		history: ssetest.NewHistory(s.promises),
		clients: newClients(t),
		quiet:   make(chan struct{}),
		admin:   caddytest.FreePort(t),
		port:    caddytest.FreePort(t),
		file:    filepath.ToSlash(filepath.Join(t.TempDir(), "record")),
	}
	w.nodes = []string{w.base()}
	for i := range 12 {
		w.channels = append(w.channels, fmt.Sprintf("busy-%d", i))
	}
	for i := range 8 {
		w.channels = append(w.channels, fmt.Sprintf("calm/%d", i))
	}
	return w
}

// fork returns a source of randomness for another goroutine.
func fork(random *rand.Rand) *rand.Rand { return rand.New(rand.NewPCG(random.Uint64(), 0)) }

// run has everybody at it for a while, and then lets them catch up.
func (w *world) run(length time.Duration) {
	ctx, cancel := context.WithCancel(w.t.Context())
	publishing, stopPublishing := context.WithCancel(ctx)
	var subscribed, published sync.WaitGroup
	defer func() {
		stopPublishing()
		cancel()
		published.Wait()
		subscribed.Wait()
	}()
	w.start()

	arrived := make(chan struct{})
	var everybody []*subscriber
	for i := range subscribers {
		s := newSubscriber(w, i)
		everybody = append(everybody, s)
		subscribed.Go(func() { s.run(ctx, arrived) })
	}
	for range witnesses {
		w.await(arrived, "the first streams to open")
	}
	for i := range publishers {
		p := newPublisher(w, i)
		published.Go(func() { p.run(ctx, publishing) })
	}
	w.chaos(length)

	stopPublishing()
	done := make(chan struct{})
	go func() { published.Wait(); close(done) }()
	w.await(done, "publishers to know what became of their events")
	w.target = newPublisher(w, publishers).mark(ctx)
	close(w.quiet)
	late := time.AfterFunc(patience, cancel)
	subscribed.Wait()
	late.Stop()
	for _, s := range everybody {
		if !s.caughtUp() {
			w.t.Errorf("%s has not come to %s within %s", s, w.target, patience)
		}
		if !s.finished {
			s.seen.CaughtUp(w.target)
		}
	}
	w.stop()
}

func (w *world) await(what <-chan struct{}, name string) {
	w.t.Helper()
	select {
	case <-what:
	case <-time.After(patience):
		w.t.Fatalf("waited %s for %s", patience, name)
	}
}

// isQuiet reports whether the chaos is over.
func (w *world) isQuiet() bool {
	select {
	case <-w.quiet:
		return true
	default:
		return false
	}
}

// sleep waits, but not when the chaos is over.
func (w *world) sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-w.quiet:
	case <-ctx.Done():
	}
}

// upTo returns a random time.
func upTo(random *rand.Rand, d time.Duration) time.Duration {
	return time.Duration(random.Int64N(int64(d) + 1))
}
