//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// report writes what the rounds told.
func (set *redis) report(rounds []redisRound) string {
	var b strings.Builder
	b.WriteString("\n## Redis\n\n")
	fmt.Fprintf(&b, "Events of %d bytes. %s, and is reached by TCP. All on one machine. Medians of %d rounds.\n", set.size, set.logs(), set.rounds)
	set.latencyTables(&b, rounds)
	set.tailTable(&b, rounds)
	set.togetherTable(&b, rounds)
	set.followTable(&b, rounds)
	return b.String()
}

func (set *redis) latencyTables(b *strings.Builder, rounds []redisRound) {
	b.WriteString("\n### Latency and CPU of a publish\n\nOne stream, on the node that is published to or on another; two nodes follow the record.\n")
	for _, l := range []struct {
		name string
		of   func(hop) hopResult
	}{
		{"one event at a time", func(h hop) hopResult { return h.alone }},
		{fmt.Sprintf("%d publishers", busyPublishers), func(h hop) hopResult { return h.busy }},
	} {
		b.WriteString("\n")
		tableHead(b, l.name, "events/s", "p50 / p99 ms", "p50 − memory's ms", "CPU µs a publish: its node", "Redis", "the other node")
		for i, name := range hops {
			of := func(value func(hopResult) float64) float64 {
				return median(rounds, func(r redisRound) float64 { return value(l.of(r.latency[i])) })
			}
			added := median(rounds, func(r redisRound) float64 {
				return milliseconds(l.of(r.latency[i]).p50) - milliseconds(l.of(r.latency[0]).p50)
			})
			cells := []string{
				name, fmt.Sprintf("%.0f", of(func(h hopResult) float64 { return h.rate() })),
				fmt.Sprintf("%.2f / %.2f", of(func(h hopResult) float64 { return milliseconds(h.p50) }), of(func(h hopResult) float64 { return milliseconds(h.p99) })),
				"-", fmt.Sprintf("%.1f", of(func(h hopResult) float64 { return h.perDelivery() })), "-", "-",
			}
			if i > 0 {
				cells[3] = fmt.Sprintf("%.2f", added)
				cells[5] = fmt.Sprintf("%.1f", of(func(h hopResult) float64 { return each(h.usage.redis, h.result.events) }))
				cells[6] = fmt.Sprintf("%.1f", of(func(h hopResult) float64 { return each(h.nodes[1], h.result.events) }))
			}
			tableRow(b, cells...)
		}
	}
}

func (set *redis) tailTable(b *strings.Builder, rounds []redisRound) {
	fmt.Fprintf(b, "\n### The rate that a node can follow\n\nPublished to one node in requests of %d events, for %s, and received by %d streams of another one: as fast as these\n", tailTogether, set.lasting, set.streams)
	fmt.Fprintf(b, "receive (the publishers are at most %d events ahead), and then at %.0f %% of that rate, whether they receive or not.\n", tailWindow, 100*pacedPart)
	b.WriteString("Behind is the worst delivery of the events of the first half, and of the second.\n\n")
	tableHead(b, "one event of … is for a stream", "events/s", "deliveries/s", "p50 / p99 ms", "behind ms",
		"CPU µs an event: publishers' node", "Redis", "streams' node", "its cores", "the client's", "MB/s from Redis to a node")
	for i, t := range tails {
		tailRow(b, fmt.Sprintf("%d, as fast as it is received", t.channelsPerStream), rounds, func(r redisRound) flowResult { return r.tails[i].most })
		tailRow(b, fmt.Sprintf("%d, by the clock", t.channelsPerStream), rounds, func(r redisRound) flowResult { return r.tails[i].paced })
	}
}

func tailRow(b *strings.Builder, name string, rounds []redisRound, get func(redisRound) flowResult) {
	of := func(format string, value func(flowResult) float64) string {
		return fmt.Sprintf(format, median(rounds, func(r redisRound) float64 { return value(get(r)) }))
	}
	worst := func(half int) string {
		return of("%.0f", func(r flowResult) float64 { return milliseconds(r.worst[half]) })
	}
	tableRow(b, name, of("%.0f", flowResult.rate), of("%.0f", flowResult.deliveryRate),
		of("%.1f", flowResult.p50)+" / "+of("%.1f", flowResult.p99), worst(0)+", "+worst(1),
		of("%.1f", func(r flowResult) float64 { return each(r.nodes[0], r.events) }),
		of("%.1f", func(r flowResult) float64 { return each(r.redis, r.events) }),
		of("%.1f", func(r flowResult) float64 { return each(r.nodes[1], r.events) }),
		of("%.2f", func(r flowResult) float64 { return r.cores(r.nodes[1]) }),
		of("%.2f", func(r flowResult) float64 { return r.cores(r.client) }),
		of("%.2f", func(r flowResult) float64 { return r.sentToEach() * r.rate() / 1e6 }))
}

func (set *redis) togetherTable(b *strings.Builder, rounds []redisRound) {
	fmt.Fprintf(b, "\n### %d nodes with %d streams each\n\n", clusterNodes, set.streams)
	fmt.Fprintf(b, "%d single events a second, published to all nodes in turns for %s, each for some %d streams of each node.\n\n", set.rate, set.lasting, perChannel)
	of := func(value func(flowResult) float64) float64 {
		return median(rounds, func(r redisRound) float64 { return value(r.together) })
	}
	ofNodes := func(r flowResult) (sum time.Duration) {
		for _, used := range r.nodes {
			sum += used
		}
		return sum
	}
	tableHead(b, "", "")
	row := func(name, format string, value func(flowResult) float64) {
		tableRow(b, name, fmt.Sprintf(format, of(value)))
	}
	row("events/s", "%.0f", flowResult.rate)
	row("deliveries/s, of all nodes", "%.0f", flowResult.deliveryRate)
	row("p50 ms", "%.2f", flowResult.p50)
	row("p99 ms", "%.2f", flowResult.p99)
	row("worst ms", "%.1f", func(r flowResult) float64 { return milliseconds(max(r.worst[0], r.worst[1])) })
	row("cores of Redis", "%.3f", func(r flowResult) float64 { return r.cores(r.redis) })
	row("cores of a node", "%.3f", func(r flowResult) float64 { return r.cores(ofNodes(r)) / clusterNodes })
	row("cores of the client", "%.3f", func(r flowResult) float64 { return r.cores(r.client) })
	row("CPU µs an event: Redis", "%.1f", func(r flowResult) float64 { return each(r.redis, r.events) })
	row("CPU µs a delivery: nodes, publishing and following included", "%.1f", func(r flowResult) float64 { return each(ofNodes(r), r.deliveries) })
	row("kB/s from Redis to a node", "%.1f", func(r flowResult) float64 { return r.sentToEach() * r.rate() / 1e3 })
	row("kB/s from all nodes to Redis", "%.1f", func(r flowResult) float64 { return float64(r.input) / r.took.Seconds() / 1e3 })
	row("bytes of an event from Redis to a node", "%.0f", flowResult.sentToEach)
	row("bytes of an event from its node to Redis", "%.0f", func(r flowResult) float64 { return float64(r.input) / float64(r.events) })
	row("bytes of memory an event in Redis", "%.0f", func(r flowResult) float64 { return float64(r.memory) / float64(r.events) })
}

func (set *redis) followTable(b *strings.Builder, rounds []redisRound) {
	b.WriteString("\n### Followers\n\nPublished to a node without streams, while it and others follow the record. The others ask as nodes do, and\n")
	b.WriteString("throw away what they are told.\n\n")
	tableHead(b, "followers", "events in a publish", "events/s", "cores of Redis", "its CPU µs an event", "events an answer", "MB/s from Redis")
	for i, g := range followings {
		of := func(format string, value func(flowResult) float64) string {
			return fmt.Sprintf(format, median(rounds, func(r redisRound) float64 { return value(r.follow[i]) }))
		}
		batch := "-"
		if g.followers > 1 {
			batch = of("%.1f", func(r flowResult) float64 { return float64(r.entries) / float64(r.answers) })
		}
		tableRow(b, fmt.Sprint(g.followers), fmt.Sprint(g.together), of("%.0f", flowResult.rate),
			of("%.3f", func(r flowResult) float64 { return r.cores(r.redis) }),
			of("%.1f", func(r flowResult) float64 { return each(r.redis, r.events) }), batch,
			of("%.2f", func(r flowResult) float64 { return float64(r.output) / r.took.Seconds() / 1e6 }))
	}
}

func (r flowResult) rate() float64 { return float64(r.events) / r.took.Seconds() }

func (r flowResult) deliveryRate() float64 { return float64(r.deliveries) / r.took.Seconds() }

// cores is how many of them some CPU time is, while events were published.
func (r flowResult) cores(used time.Duration) float64 { return used.Seconds() / r.took.Seconds() }

func (r flowResult) p50() float64 { return milliseconds(r.latency.quantile(0.50)) }

func (r flowResult) p99() float64 { return milliseconds(r.latency.quantile(0.99)) }

// sentToEach is how many bytes Redis sends to a node for an event, with the answers
// to those who publish.
func (r flowResult) sentToEach() float64 {
	return float64(r.output) / float64(len(r.nodes)) / float64(r.events)
}

// each is CPU time in microseconds for each of so many.
func each(used time.Duration, of int) float64 {
	return float64(used.Nanoseconds()) / 1000 / float64(of)
}
