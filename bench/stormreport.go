//go:build linux

package main

import (
	"fmt"
	"strings"
	"time"
)

// stormSteps are in the order of the report.
var stormSteps = []stormStep{stepConnect, stepLive, stepBurst, stepStorm, stepStart, stepConnected, stepRestarted}

// report writes what the rounds cost.
func (set *storm) report(rounds []stormRound) string {
	var b strings.Builder
	for _, n := range set.spreads() {
		fmt.Fprintf(&b, "\n## Storm: %d streams, %d missed events each, channels: %d\n\n", set.streams, set.events, n)
		fmt.Fprintf(&b, "Medians of %d interleaved rounds. CPU is the server's, in seconds for all streams together; × live is its\n", set.rounds)
		b.WriteString("ratio to the same events delivered live, one at a time, within a round [lowest to highest].\n\n")
		tableHead(&b, "broker", "what", "CPU s", "× live", "all done after s", "p50 / p99 ms", "peak memory MB")
		for _, broker := range brokers {
			set.reportRefuge(&b, rounds, refugeName{broker, n})
		}
	}
	return b.String()
}

func (set *storm) reportRefuge(b *strings.Builder, rounds []stormRound, name refugeName) {
	for _, step := range stormSteps {
		if _, ok := rounds[0][name][step]; !ok {
			continue
		}
		of := func(value func(cost) float64) float64 {
			return median(rounds, func(r stormRound) float64 { return value(r[name][step]) })
		}
		quantiles := fmt.Sprintf("%.1f / %.1f", of(func(c cost) float64 { return milliseconds(c.p50) }), of(func(c cost) float64 { return milliseconds(c.p99) }))
		if step == stepStart {
			quantiles = "-"
		}
		tableRow(b, name.broker, string(step),
			fmt.Sprintf("%.3f", of(func(c cost) float64 { return c.cpu.Seconds() })),
			spread(rounds, func(r stormRound) float64 { return r.ratio(name, r[name][step].cpu) }),
			fmt.Sprintf("%.2f", of(func(c cost) float64 { return c.took.Seconds() })),
			quantiles,
			fmt.Sprintf("%.0f", of(func(c cost) float64 { return float64(c.peak) / 1e6 })))
	}
	reportReplay(b, rounds, name, stepStorm, stepConnect)
	if _, ok := rounds[0][name][stepRestarted]; ok {
		reportReplay(b, rounds, name, stepRestarted, stepConnected)
	}
}

// reportReplay tells what remains of a storm without connecting.
func reportReplay(b *strings.Builder, rounds []stormRound, name refugeName, step, connecting stormStep) {
	replay := func(r stormRound) time.Duration { return r[name][step].cpu - r[name][connecting].cpu }
	tableRow(b, name.broker, fmt.Sprintf("of “%s”, without connecting", step),
		fmt.Sprintf("%.3f", median(rounds, func(r stormRound) float64 { return replay(r).Seconds() })),
		spread(rounds, func(r stormRound) float64 { return r.ratio(name, replay(r)) }),
		"-", "-", "-")
}

// ratio compares CPU time with that of the live delivery.
func (r stormRound) ratio(name refugeName, cpu time.Duration) float64 {
	return cpu.Seconds() / r[name][stepLive].cpu.Seconds()
}

func milliseconds(d time.Duration) float64 { return d.Seconds() * 1000 }
