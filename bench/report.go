//go:build linux

package main

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// reportHead begins a report as Markdown: when, what and on what.
func reportHead(command string, on subject) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n    %s\n\n", time.Now().Format(time.DateOnly), command)
	for line := range strings.Lines(on.String()) {
		fmt.Fprintf(&b, "    %s", line)
	}
	b.WriteString("\n\n")
	return b.String()
}

// report writes what the fan-out cost.
func report(set settings, rounds []round) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Medians of %d interleaved rounds. CPU is the server's, in seconds per million deliveries; × loop is\n", set.rounds)
	b.WriteString("its ratio to the floor within a round [lowest to highest].\n")

	fmt.Fprintf(&b, "\n## %d streams on one channel\n\n", set.streams)
	tableHead(&b, "engine", "idle bytes a stream", "one event at a time: CPU", "× loop", "deliveries/s", "p50 / p99 ms", "client's cores")
	for _, e := range engines {
		memory := median(rounds, func(r round) float64 { return r[e].memory })
		tableRow(&b, append([]string{e, fmt.Sprintf("%.0f", memory)}, fanOut(rounds, e, func(s sample) result { return s.single })...)...)
	}
	b.WriteString("\n")
	tableHead(&b, "engine", fmt.Sprintf("%d events outstanding: CPU", busyPublishers), "× loop", "deliveries/s", "p50 / p99 ms", "client's cores")
	for _, e := range engines {
		tableRow(&b, append([]string{e}, fanOut(rounds, e, func(s sample) result { return s.busy })...)...)
	}
	b.WriteString("\n")
	tableHead(&b, "engine", "low rate: CPU", "× loop", "deliveries/s", "p50 / p99 ms", "client's cores")
	for _, e := range engines {
		tableRow(&b, append([]string{e}, fanOut(rounds, e, func(s sample) result { return s.slow })...)...)
	}

	b.WriteString("\n## A publish to one of these streams\n\n")
	tableHead(&b, "engine", "the others on one channel: CPU µs", "p50 / p99 ms", "each on its own: CPU µs", "p50 / p99 ms", "ratio")
	two := func(s sample) result { return s.two }
	many := func(s sample) result { return s.many }
	for _, e := range engines {
		ratio := spread(rounds, func(r round) float64 { return r[e].many.perDelivery() / r[e].two.perDelivery() })
		tableRow(&b, e,
			fmt.Sprintf("%.1f", medianOf(rounds, e, two, result.perDelivery)), quantiles(rounds, e, two),
			fmt.Sprintf("%.1f", medianOf(rounds, e, many, result.perDelivery)), quantiles(rounds, e, many), ratio)
	}
	return b.String()
}

// fanOut returns the columns that tell of a load on all streams.
func fanOut(rounds []round, engine string, load func(sample) result) []string {
	return []string{
		fmt.Sprintf("%.2f", medianOf(rounds, engine, load, result.perDelivery)),
		spread(rounds, func(r round) float64 {
			return load(r[engine]).perDelivery() / load(r[engines[0]]).perDelivery()
		}),
		fmt.Sprintf("%.0f k", medianOf(rounds, engine, load, result.rate)/1000),
		quantiles(rounds, engine, load),
		fmt.Sprintf("%.2f", medianOf(rounds, engine, load, result.clientCores)),
	}
}

// perDelivery is the server's CPU time in microseconds.
func (r result) perDelivery() float64 {
	return float64(r.cpu.Nanoseconds()) / 1000 / float64(r.deliveries)
}

// rate is deliveries in a second.
func (r result) rate() float64 { return float64(r.deliveries) / r.took.Seconds() }

// clientCores is how many cores the client kept busy.
func (r result) clientCores() float64 { return r.client.Seconds() / r.took.Seconds() }

func quantiles(rounds []round, engine string, load func(sample) result) string {
	return fmt.Sprintf("%.2f / %.2f",
		medianOf(rounds, engine, load, func(r result) float64 { return r.p50.Seconds() * 1000 }),
		medianOf(rounds, engine, load, func(r result) float64 { return r.p99.Seconds() * 1000 }))
}

func medianOf(rounds []round, engine string, load func(sample) result, value func(result) float64) float64 {
	return median(rounds, func(r round) float64 { return value(load(r[engine])) })
}

// values returns what is to be known of all rounds, the lowest first.
func values[R any](rounds []R, value func(R) float64) []float64 {
	var found []float64
	for _, r := range rounds {
		found = append(found, value(r))
	}
	slices.Sort(found)
	return found
}

// median is the middle one, of an even number the lower of the two.
func median[R any](rounds []R, value func(R) float64) float64 {
	return values(rounds, value)[(len(rounds)-1)/2]
}

// spread is the median with the lowest and the highest.
func spread[R any](rounds []R, value func(R) float64) string {
	all := values(rounds, value)
	return fmt.Sprintf("%.2f [%.2f to %.2f]", median(rounds, value), all[0], all[len(all)-1])
}

func tableHead(b *strings.Builder, names ...string) {
	tableRow(b, names...)
	b.WriteString("|" + strings.Repeat(" --- |", len(names)) + "\n")
}

func tableRow(b *strings.Builder, cells ...string) {
	b.WriteString("| " + strings.Join(cells, " | ") + " |\n")
}
