package torture

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/caddytest"
	"github.com/caddy-sse/caddy-sse/internal/redistest"
	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

const (
	clusterNodes  = 3
	clusterFeeds  = 4
	shortCluster  = 4 * time.Second
	attemptOfFeed = 2 * time.Second // after which it tries another node
)

// histories are what a node may have in memory: all, or so little that most of what was
// missed comes from Redis.
var histories = []string{
	"history 10000000 1h\n memory 8GiB",
	"history 20 1h\n memory 1MB",
}

// What becomes of Redis in a scenario.
type redisLife int

const (
	redisStays   redisLife = iota // it is silent at most
	redisGoesOn                   // it is killed, and has lost nothing that it answered
	redisForgets                  // it is killed, and comes back with what it once saved
)

type clusterScenario struct {
	name     string
	redis    redisLife
	server   []string // arguments of redis-server
	setting  string   // of the broker
	promises ssetest.HistoryOptions
}

// A rewrite of the append-only file begins often, so that some are killed.
var clusterScenarios = []clusterScenario{
	{
		name: "nodes and links fail", redis: redisStays,
		promises: ssetest.HistoryOptions{KeepsAll: true, Durable: true},
	},
	{
		name: "and Redis, which goes on", redis: redisGoesOn,
		server:   []string{"--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-min-size", "256kb"},
		setting:  "after_restart go_on",
		promises: ssetest.HistoryOptions{KeepsAll: true, Durable: true},
	},
	{
		name: "and Redis, which loses what came last", redis: redisForgets,
		promises: ssetest.HistoryOptions{KeepsAll: true},
	},
}

// TestThreeNodes holds promises 1 and 2 for three nodes that share a record in Redis,
// whatever happens to them, to Redis, and to the ways between: what was acknowledged is
// neither lost, doubled nor reordered, nor missing without a reset that says so, for
// browsers that come back to any node. There are resets only where Redis has lost
// something. TORTURE_TIME is how long it goes on, TORTURE_SEED what it does.
func TestThreeNodes(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGSTOP")
	}
	seed, rounds, length := plan(t, len(clusterScenarios), shortCluster)
	for round := range rounds {
		s := clusterScenarios[round%len(clusterScenarios)]
		t.Run(s.name, func(t *testing.T) {
			c := newCluster(t, s, rand.New(rand.NewPCG(seed, uint64(round))))
			c.open()
			c.chaos(length)
			c.finish()
			report := c.history.Check()
			t.Logf("TORTURE_SEED=%d, round %d, %s\n%s\n%s", seed, round, s.name, c.faults, report)
			c.check(report)
		})
	}
}

// A cluster is the nodes, their Redis, and all who use them.
type cluster struct {
	t        *testing.T
	scenario clusterScenario
	random   *rand.Rand // of the goroutine of the test
	redis    *redistest.Server
	nodes    []*clusterNode
	history  *ssetest.History
	client   *http.Client // of publishers, and to ask the nodes
	feed     *feed
	pages    []*page
	back     chan struct{} // closed when those may come back who left
	healed   chan struct{} // closed when all works again

	faults   faultCounts
	restarts int // of Redis

	ctx            context.Context
	closeAll       func() // closes the pages
	stopping       context.Context
	stopPublishing func()
	opened         sync.WaitGroup
	published      sync.WaitGroup
}

// newCluster starts Redis and the nodes.
func newCluster(t *testing.T, s clusterScenario, random *rand.Rand) *cluster {
	c := &cluster{
		t: t, scenario: s, random: random, history: ssetest.NewHistory(s.promises),
		redis: redistest.Start(t, s.server...), back: make(chan struct{}), healed: make(chan struct{}), faults: make(faultCounts),
		client: &http.Client{Transport: newClients(t).post.Transport, Timeout: attemptOfFeed},
	}
	c.ctx, c.closeAll = context.WithCancel(t.Context())
	c.stopping, c.stopPublishing = context.WithCancel(c.ctx)
	t.Cleanup(func() {
		c.closeAll()
		c.published.Wait()
		c.opened.Wait()
	})
	for range clusterNodes {
		n := &clusterNode{
			t: t, port: caddytest.FreePort(t), link: redistest.NewLink(t, c.redis),
			setting: s.setting, history: pick(random, histories),
		}
		n.launch()
		c.nodes = append(c.nodes, n)
	}
	c.awaitHealthy()
	return c
}

// anyNode returns the addresses of nodes, in a random order of its own.
func (c *cluster) anyNode() func() string {
	var mu sync.Mutex // the publishers have one in common
	random := fork(c.random)
	return func() string {
		mu.Lock()
		defer mu.Unlock()
		return pick(random, c.nodes).address()
	}
}

// open has everybody at it: pages of different channels over HTTP/1.1 and 2, some of whose
// connections break by themselves and some of which are left from the first event to the
// end; and publishers.
func (c *cluster) open() {
	clients := newClients(c.t)
	for i := range 18 {
		channels := [][]string{{"news"}, {"news", "stocks-*"}, {"stocks-a", "stocks-b"}, {"*"}}[i%4]
		p := &page{
			t: c.t, name: fmt.Sprint(i), channels: channels, next: c.anyNode(),
			client: pick(c.random, []*http.Client{clients.own, clients.own, clients.shared}),
			seen:   c.history.NewSubscriber(fmt.Sprint(i), channels), hurry: c.healed,
		}
		if i >= 16 {
			p.back = c.back
		} else if i >= 4 {
			random := fork(c.random)
			p.breaks = func() bool { return random.IntN(200) == 0 }
		}
		c.pages = append(c.pages, p)
		c.opened.Go(func() { p.run(c.ctx) })
	}
	c.feed = &feed{t: c.t, address: c.anyNode(), history: c.history, client: c.client}
	for range clusterFeeds {
		c.published.Go(func() { c.feed.run(c.ctx, c.stopping) })
	}
	c.await("every page is open", func(v pageView) bool { return v.events > 0 })
}

func (c *cluster) await(what string, is func(v pageView) bool) {
	c.t.Helper()
	defer func() {
		if !c.t.Failed() {
			return
		}
		for _, p := range c.pages {
			c.t.Logf("page %s: %+v", p.name, p.look())
		}
	}()
	eventually(c.t, what, func() bool {
		return !slices.ContainsFunc(c.pages, func(p *page) bool { return !is(p.look()) })
	})
}

func (c *cluster) awaitHealthy() {
	c.t.Helper()
	for _, n := range c.nodes {
		eventually(c.t, n.address()+" is healthy", func() bool {
			req, err := http.NewRequestWithContext(c.ctx, http.MethodGet, n.address()+"/sse/health", nil)
			if err != nil {
				c.t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer secret")
			resp, err := c.client.Do(req)
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
}

// finish has everybody come to one last event.
func (c *cluster) finish() {
	close(c.back)
	c.awaitHealthy()
	close(c.healed)
	c.stopPublishing()
	c.published.Wait()
	c.feed.publish(c.ctx, rollingChannels...)
	_, last := c.feed.progress()
	c.await("every page is at "+last.String(), func(v pageView) bool {
		return v.at.Epoch == last.Epoch && v.at.Seq >= last.Seq
	})
	c.closeAll()
	c.opened.Wait()
	for _, p := range c.pages {
		p.seen.CaughtUp(last)
	}
}

// check holds what the history does not know of: where there may be resets at all.
func (c *cluster) check(report *ssetest.Report) {
	c.t.Helper()
	for _, v := range report.Violations[:min(len(report.Violations), shownViolations)] {
		c.t.Errorf("%s", v)
	}
	lives := 1
	if c.scenario.redis == redisForgets {
		lives += c.restarts
	}
	if report.Epochs > lives {
		c.t.Errorf("there were %d records, but Redis lost something %d times", report.Epochs, lives-1)
	}
	for reason, n := range report.Resets {
		if lives == 1 || reason != sse.ResetEpoch {
			c.t.Errorf("there were %d resets because of %q, though Redis lost something %d times", n, reason, lives-1)
		}
	}
}
