package torture

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/caddy-sse/caddy-sse/internal/redistest"
)

// A part is what can fail by itself: a node, the way of a node to Redis, or Redis.
type part struct {
	faults []fault
	repair func() // nil while it works
}

// A fault is one way to fail. Do does it and returns what undoes it.
type fault struct {
	name string
	do   func() (repair func())
}

const (
	// faultOdds of a hundred times that a part is looked at that works, it fails. The
	// next time it is repaired. So everything works at a third of the time.
	faultOdds = 35
	// Most faults are short. The long ones are longer than it takes to notice a
	// silent Redis, by a publish and by who follows.
	shortPause = 200 * time.Millisecond
	longPause  = 8 * time.Second
	longOdds   = 30 // one in so many
	// blackoutOdds are those of a blackout, one in so many.
	blackoutOdds = 25
)

// chaos has parts fail and come back, each by itself, so that some failures overlap. In
// the end all are repaired.
func (c *cluster) chaos(length time.Duration) {
	parts := c.parts()
	for end := time.Now().Add(length); time.Now().Before(end); {
		if c.scenario.redis != redisStays && c.random.IntN(blackoutOdds) == 0 {
			c.blackout(parts)
		}
		p := parts[c.random.IntN(len(parts))]
		switch f := pick(c.random, p.faults); {
		case p.repair != nil:
			p.repair()
			p.repair = nil
		case c.random.IntN(100) < faultOdds:
			c.faults[f.name]++
			p.repair = f.do()
		}
		longest := shortPause
		if c.random.IntN(longOdds) == 0 {
			longest = min(longPause, length/3)
		}
		pace(c.random, longest)
	}
	if c.scenario.redis != redisStays {
		c.blackout(parts) // a short run had none, perhaps
	}
	repairAll(parts)
}

func repairAll(parts []*part) {
	for _, p := range parts {
		if p.repair != nil {
			p.repair()
			p.repair = nil
		}
	}
}

// blackout kills Redis and all nodes, so that only clients know what there was. If Redis
// has lost something, none of the nodes could tell.
func (c *cluster) blackout(parts []*part) {
	c.faults["blackouts"]++
	repairAll(parts)
	if c.scenario.redis == redisForgets {
		c.redis.Do("SAVE")
		pace(c.random, 5*shortPause) // positions are given that will be given again
	}
	c.redis.Kill()
	for _, n := range c.nodes {
		n.kill()
	}
	c.restarts++
	c.redis.Restart()
	for _, n := range c.nodes {
		n.launch()
	}
}

func (c *cluster) parts() (parts []*part) {
	for _, n := range c.nodes {
		parts = append(parts, &part{faults: nodeFaults(n, fork(c.random))}, &part{faults: linkFaults(n.link)})
	}
	return append(parts, &part{faults: c.redisFaults()})
}

func nodeFaults(n *clusterNode, random *rand.Rand) []fault {
	start := func() {
		n.history = pick(random, histories)
		n.launch()
	}
	return []fault{
		{"nodes killed", func() func() { n.kill(); return start }},
		{"nodes stopped", func() func() { n.terminate(); return start }},
		{"nodes suspended", func() func() {
			n.signal(syscall.SIGSTOP)
			return func() { n.signal(syscall.SIGCONT) }
		}},
		{"nodes killed while suspended", func() func() {
			n.signal(syscall.SIGSTOP)
			return func() { n.kill(); start() }
		}},
	}
}

// linkFaults are partitions, from one that everybody notices to one in which Redis does
// what it is asked and nobody hears of it.
func linkFaults(link *redistest.Link) []fault {
	return []fault{
		{"links cut", func() func() { link.Cut(); return link.Heal }},
		{"links severed", func() func() { link.Sever(); return link.Heal }},
		{"links deaf", func() func() { link.Deafen(); return link.Heal }},
	}
}

func (c *cluster) redisFaults() []fault {
	faults := []fault{{"Redis suspended", func() func() { c.redis.Suspend(); return c.redis.Resume }}}
	if c.scenario.redis == redisStays {
		return faults
	}
	restart := func() { c.restarts++; c.redis.Restart() }
	faults = append(
		faults,
		fault{"Redis killed", func() func() { c.redis.Kill(); return restart }},
		fault{"Redis stopped", func() func() { c.redis.Stop(); return restart }},
	)
	if c.scenario.redis == redisForgets {
		// What comes after this is lost when it restarts, and then its numbers
		// are given to other events.
		faults = append(faults, fault{"Redis saved", func() func() { c.redis.Do("SAVE"); return func() {} }})
	}
	return faults
}

// faultCounts tell how often each fault was.
type faultCounts map[string]int

// String returns the counts on one line.
func (f faultCounts) String() string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(f)) {
		parts = append(parts, fmt.Sprintf("%s: %d", name, f[name]))
	}
	return strings.Join(parts, ", ")
}
