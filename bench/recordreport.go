//go:build linux

package main

import (
	"fmt"
	"strings"
)

// report writes what the parts and the shared commits told.
func (set *record) report(parts []tenth, shares []share) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d publishers of lines and one of single events, one stream that received every event once and in order.\n", feeds)
	fmt.Fprintf(&b, "\n## %d events, of which %d are kept\n\n", set.events, set.keep)
	tableHead(&b, "events so far", "events/s", "file MB", "memory MB", "CPU µs an event", "p50 / p99 ms of a single publish")
	so := 0
	for _, p := range parts {
		so += p.events
		tableRow(&b, fmt.Sprint(so), fmt.Sprintf("%.0f", p.rate()), fmt.Sprintf("%.1f", float64(p.file)/1e6),
			fmt.Sprintf("%.1f", float64(p.memory)/1e6), fmt.Sprintf("%.1f", p.perEvent()),
			fmt.Sprintf("%.2f / %.2f", milliseconds(p.p50), milliseconds(p.p99)))
	}
	second, last := parts[1], parts[len(parts)-1]
	ratio := func(value func(tenth) float64) string { return fmt.Sprintf("%.2f", value(last)/value(second)) }
	tableRow(&b, "last row ÷ second", ratio(tenth.rate),
		ratio(func(p tenth) float64 { return float64(p.file) }),
		ratio(func(p tenth) float64 { return float64(p.memory) }),
		ratio(tenth.perEvent),
		ratio(func(p tenth) float64 { return p.p50.Seconds() })+" / "+ratio(func(p tenth) float64 { return p.p99.Seconds() }))

	fmt.Fprintf(&b, "\n## Shared commits\n\nSingle events on the same hub. Medians of %d rounds [lowest to highest].\n\n", set.rounds)
	tableHead(&b, "sync of 4 KB: p50 / p99 ms", "1 publisher: events/s", fmt.Sprintf("%d publishers: events/s", sharers), "ratio")
	of := func(value func(share) float64) float64 { return median(shares, value) }
	tableRow(&b,
		fmt.Sprintf("%.2f / %.2f", of(func(s share) float64 { return milliseconds(s.syncs.quantile(0.50)) }),
			of(func(s share) float64 { return milliseconds(s.syncs.quantile(0.99)) })),
		fmt.Sprintf("%.0f", of(func(s share) float64 { return s.alone })),
		fmt.Sprintf("%.0f", of(func(s share) float64 { return s.together })),
		spread(shares, func(s share) float64 { return s.together / s.alone }))
	return b.String()
}

// rate is events in a second.
func (p tenth) rate() float64 { return float64(p.events) / p.took.Seconds() }

// perEvent is the server's CPU time in microseconds.
func (p tenth) perEvent() float64 { return float64(p.cpu.Nanoseconds()) / 1000 / float64(p.events) }
