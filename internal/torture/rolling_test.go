package torture

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/ssetest"
)

var rollingChannels = []string{"news", "stocks-a", "stocks-b"}

// progressed is how many events must come before the next thing happens.
const progressed = 20

// TestRollingRestart holds promises 1 and 2 for a site that is restarted node by node
// behind a load balancer, while publishers publish: no page gives up, each hears
// hub:close before its node goes, and none misses an event unless a reset says so. What
// a restart is to it depends on whose record the next node has (that which they share in
// Redis is TestRedis's):
//
//   - two nodes in memory, to both of which everything is published: each start of
//     each is another record, and so a reset;
//   - the same with files: who is moved is reset, who waits for the node it had is not;
//   - one file that a node leaves to the next: no reset at all.
func TestRollingRestart(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("there is no SIGTERM")
	}
	t.Run("a record of its own in memory", func(t *testing.T) {
		r := newRolling(t, "memory", eachItsOwn, ssetest.HistoryOptions{KeepsAll: true})
		r.roll()
		r.finish(4)
		for _, p := range r.pages {
			r.expectResets(p, true)
		}
	})
	t.Run("a record of its own in a file", func(t *testing.T) {
		r := newRolling(t, "bolt RECORD", eachItsOwn, ssetest.HistoryOptions{KeepsAll: true})
		r.roll()
		r.finish(2)
		for _, p := range r.pages {
			balanced := p.address == r.site.balancer
			if balanced && p.back != nil {
				continue // whether it comes back to the node that it had is left open
			}
			r.expectResets(p, balanced)
		}
	})
	t.Run("one file that is handed over", func(t *testing.T) {
		r := newRolling(t, "bolt RECORD", handedOver, ssetest.HistoryOptions{KeepsAll: true, Durable: true})
		r.handOver()
		r.finish(1)
		for _, p := range r.pages {
			r.expectResets(p, false)
		}
	})
}

// Whose record it is to which is published.
type record int

const (
	eachItsOwn record = iota // each node's, and everything is published to each
	handedOver               // the one that a node leaves to the next
	shared                   // the one that all nodes have at the same time
)

// rolling is a site and all who use it.
type rolling struct {
	t       *testing.T
	site    *rollingSite
	history *ssetest.History
	feeds   []*feed // of the nodes in their order; or the only one
	pages   []*page
	back    chan struct{} // closed when those may come back who left

	ctx            context.Context
	closeAll       func() // closes the pages
	stopping       context.Context
	stopPublishing func()
	opened         sync.WaitGroup
	published      sync.WaitGroup
}

// newRolling starts everything. Where there is one record, what is published goes
// through the balancer; else it goes to both nodes.
func newRolling(t *testing.T, broker string, whose record, promises ssetest.HistoryOptions) *rolling {
	r := prepareRolling(t, broker, whose, promises)
	r.begin(whose)
	return r
}

// prepareRolling starts the balancer alone.
func prepareRolling(t *testing.T, broker string, whose record, promises ssetest.HistoryOptions) *rolling {
	r := &rolling{t: t, site: newRollingSite(t, broker, whose), history: ssetest.NewHistory(promises), back: make(chan struct{})}
	r.ctx, r.closeAll = context.WithCancel(t.Context())
	r.stopping, r.stopPublishing = context.WithCancel(r.ctx)
	t.Cleanup(func() {
		r.closeAll()
		r.published.Wait()
		r.opened.Wait()
	})
	return r
}

// begin starts the nodes and all who use them.
func (r *rolling) begin(whose record) {
	r.t.Helper()
	for i, n := range r.site.nodes {
		if i == 0 || whose != handedOver {
			n.launch()
		}
	}
	r.use(whose)
}

// use starts all who use the nodes that were launched.
func (r *rolling) use(whose record) {
	r.t.Helper()
	nodes, balancer := r.site.nodes[:], r.site.balancer
	if whose == handedOver {
		nodes = nodes[:1]
	}
	for _, n := range nodes {
		r.site.supervise(n)
	}
	switch whose {
	case eachItsOwn:
		r.feed(nodes[0].address(), nodes[1].address())
		r.open(balancer, balancer, balancer+"/a", balancer+"/b")
	case handedOver:
		r.feed(balancer)
		r.open(balancer, balancer)
	case shared:
		r.feed(balancer)
		r.open(balancer, balancer+"/a", balancer+"/b")
	}
	for _, f := range r.feeds {
		for range 2 {
			r.published.Go(func() { f.run(r.ctx, r.stopping) })
		}
	}
	r.await("every page is open", r.pages, func(_ *page, v pageView) bool { return v.events > 0 })
}

// feed makes feeds to addresses.
func (r *rolling) feed(feeds ...string) {
	for _, address := range feeds {
		r.feeds = append(r.feeds, &feed{t: r.t, address: func() string { return address }, history: r.history, client: newClients(r.t).post})
	}
}

// open opens pages of each address that want different channels over HTTP/1.1 and 2,
// of which one is left after its first event.
func (r *rolling) open(addresses ...string) {
	clients := newClients(r.t)
	for _, address := range addresses {
		for i, channels := range [][]string{{"news"}, {"news", "stocks-*"}, {"stocks-a", "stocks-b"}, {"*"}, {"news"}} {
			p := &page{t: r.t, address: address, channels: channels, client: clients.own}
			if i%2 == 1 {
				p.client = clients.shared
			}
			if i == 4 {
				p.back = r.back
			}
			p.name = fmt.Sprintf("%d at %s", len(r.pages), address)
			p.seen = r.history.NewSubscriber(p.name, channels)
			r.pages = append(r.pages, p)
			r.opened.Go(func() { p.run(r.ctx) })
		}
	}
}

// await waits until something is true of each page.
func (r *rolling) await(what string, pages []*page, is func(p *page, v pageView) bool) {
	r.t.Helper()
	var lacking *page
	defer func() {
		if r.t.Failed() && lacking != nil {
			r.t.Logf("page %s is not there: %+v", lacking.name, lacking.look())
		}
	}()
	eventually(r.t, what, func() bool {
		i := slices.IndexFunc(pages, func(p *page) bool { return !is(p, p.look()) })
		lacking = nil
		if i >= 0 {
			lacking = pages[i]
		}
		return i < 0
	})
}

// awaitEvents waits until each of the pages has got some more.
func (r *rolling) awaitEvents(pages []*page) {
	r.t.Helper()
	before := make(map[*page]int)
	for _, p := range pages {
		before[p] = p.look().events
	}
	r.await("every page gets events", pages, func(p *page, v pageView) bool { return v.events >= before[p]+progressed })
}

// at returns the pages of an address that were not left.
func (r *rolling) at(address string) (found []*page) {
	for _, p := range r.pages {
		if p.back == nil && p.address == address {
			found = append(found, p)
		}
	}
	return found
}

// roll restarts one node after the other. The pages that the balancer may move
// are at the other one meanwhile; those that it may not wait.
func (r *rolling) roll() {
	moved := r.at(r.site.balancer)
	for i, n := range r.site.nodes {
		other := r.feeds[(1-i)%len(r.feeds)]
		n.terminate()
		n.awaitExit()
		_, there := other.progress()
		r.await("the pages are at the other node", moved, func(_ *page, v pageView) bool {
			return v.open && v.at.Epoch == there.Epoch
		})
		r.awaitEvents(moved)
		n.launch()
		r.site.supervise(n)
		r.awaitEvents(r.at(r.site.balancer + "/" + n.name))
	}
	for _, n := range r.site.nodes {
		r.expectDrained(r.at(r.site.balancer+"/"+n.name), 1)
	}
	r.expectDrained(moved, 1)
}

// handOver has each node take over from the other. One that is started too early does
// not get the file, and changes nothing for those who use the site.
func (r *rolling) handOver() {
	pages := r.at(r.site.balancer)
	a, b := r.site.nodes[0], r.site.nodes[1]
	for _, turn := range [][2]*rollingNode{{a, b}, {b, a}} {
		former, next := turn[0], turn[1]
		next.launch()
		next.expectLocked()
		r.awaitEvents(pages)
		next.launch()
		former.terminate()
		former.awaitExit()
		r.site.supervise(next)
		r.awaitEvents(pages)
	}
	r.expectDrained(pages, 2)
}

func (r *rolling) expectDrained(pages []*page, least int) {
	r.t.Helper()
	for _, p := range pages {
		if n := p.look().drains; n < least {
			r.t.Errorf("page %s was told %d times that its node stops, want %d", p.name, n, least)
		}
	}
}

// finish has everybody catch up, and checks the history, in which there should be
// so many records.
func (r *rolling) finish(epochs int) {
	close(r.back)
	r.stopPublishing()
	r.published.Wait()
	ends := make(map[string]sse.Position) // by epoch
	for _, f := range r.feeds {
		f.publish(r.ctx, rollingChannels...)
		_, last := f.progress()
		ends[last.Epoch] = last
	}
	r.await("every page is up to date", r.pages, func(_ *page, v pageView) bool {
		end, ok := ends[v.at.Epoch]
		return ok && v.at.Seq >= end.Seq
	})
	r.closeAll()
	r.opened.Wait()
	for _, p := range r.pages {
		p.seen.CaughtUp(ends[p.look().at.Epoch])
	}
	report := r.history.Check()
	r.t.Logf("%s", report)
	for _, v := range report.Violations[:min(len(report.Violations), shownViolations)] {
		r.t.Errorf("%s", v)
	}
	if report.Epochs != epochs {
		r.t.Errorf("there were %d records, want %d", report.Epochs, epochs)
	}
}

// expectResets checks whether a page was told that events are missing, and only for
// the reason that it came to another record.
func (r *rolling) expectResets(p *page, want bool) {
	r.t.Helper()
	resets := p.look().resets
	other := slices.ContainsFunc(resets, func(reason string) bool { return reason != string(sse.ResetEpoch) })
	if (len(resets) > 0) != want || other {
		r.t.Errorf("page %s got the resets %q; that it gets some because of the epoch should be %t", p.name, resets, want)
	}
}
