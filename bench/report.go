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

// A fanoutReport tells of the engines that took part in all rounds.
type fanoutReport struct {
	set     *fanout
	rounds  []round
	engines []string
}

// text writes what the fan-out cost.
func (r fanoutReport) text(notes []string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %s: %d streams on one channel\n\n", r.set.title, r.set.streams)
	fmt.Fprintf(&b, "Medians of %d interleaved rounds. CPU is the server's, in seconds per million deliveries; × %s is\n", r.set.rounds, r.set.engines[0])
	b.WriteString("its ratio to that within a round [lowest to highest].\n\n")
	for _, note := range notes {
		b.WriteString(note + "\n\n")
	}
	first := []string{"engine", "idle bytes a stream"}
	if r.hasShared() {
		first = append(first, fmt.Sprintf("%d streams a connection", shareOfConnection))
	}
	r.loadTable(&b, first, "one event at a time", sample.getSingle)
	r.loadTable(&b, first[:1], fmt.Sprintf("%d events outstanding", busyPublishers), sample.getBusy)
	r.loadTable(&b, first[:1], "low rate", sample.getSlow)
	if r.rounds[0]["caddy"].two.deliveries > 0 {
		r.oneTable(&b)
	}
	return b.String()
}

func (r fanoutReport) hasShared() bool { return r.rounds[0]["caddy"].shared > 0 }

// loadTable writes what a load cost, behind columns of which the second and
// third are of memory.
func (r fanoutReport) loadTable(b *strings.Builder, first []string, name string, load func(sample) result) {
	tableHead(b, append(slices.Clone(first), name+": CPU", "× "+r.set.engines[0], "deliveries/s", "p50 / p99 ms", "client's cores")...)
	for _, e := range r.engines {
		cells := []string{e}
		if len(first) > 1 {
			cells = append(cells, fmt.Sprintf("%.0f", median(r.rounds, func(x round) float64 { return x[e].memory })))
		}
		if len(first) > 2 {
			cells = append(cells, fmt.Sprintf("%.0f", median(r.rounds, func(x round) float64 { return x[e].shared })))
		}
		tableRow(b, append(cells, r.loadCells(e, load)...)...)
	}
	b.WriteString("\n")
}

// loadCells are the columns that tell of a load on all streams.
func (r fanoutReport) loadCells(engine string, load func(sample) result) []string {
	return []string{
		fmt.Sprintf("%.2f", r.median(engine, load, result.perDelivery)),
		spread(r.rounds, func(x round) float64 { return r.ratio(x, engine, load) }),
		fmt.Sprintf("%.0f k", r.median(engine, load, result.rate)/1000),
		r.quantiles(engine, load),
		fmt.Sprintf("%.2f", r.median(engine, load, result.clientCores)),
	}
}

func (r fanoutReport) oneTable(b *strings.Builder) {
	b.WriteString("A publish to one of these streams:\n\n")
	tableHead(b, "engine", "the others on one channel: CPU µs", "p50 / p99 ms", "each on its own: CPU µs", "p50 / p99 ms", "ratio")
	for _, e := range r.engines {
		tableRow(b, e,
			fmt.Sprintf("%.1f", r.median(e, sample.getTwo, result.perDelivery)), r.quantiles(e, sample.getTwo),
			fmt.Sprintf("%.1f", r.median(e, sample.getMany, result.perDelivery)), r.quantiles(e, sample.getMany),
			spread(r.rounds, func(x round) float64 { return x[e].manyOverTwo() }))
	}
}

// ratio is the CPU of a load in proportion to that of the first engine.
func (r fanoutReport) ratio(x round, engine string, load func(sample) result) float64 {
	return load(x[engine]).perDelivery() / load(x[r.set.engines[0]]).perDelivery()
}

func (r fanoutReport) quantiles(engine string, load func(sample) result) string {
	return fmt.Sprintf("%.2f / %.2f",
		r.median(engine, load, func(x result) float64 { return milliseconds(x.p50) }),
		r.median(engine, load, func(x result) float64 { return milliseconds(x.p99) }))
}

func (r fanoutReport) median(engine string, load func(sample) result, value func(result) float64) float64 {
	return median(r.rounds, func(x round) float64 { return value(load(x[engine])) })
}

// panels draw CPU and memory.
func (r fanoutReport) panels() []panel {
	draw := func(title string, value func(sample) float64) panel {
		p := panel{title: fmt.Sprintf("%s, %d streams: %s", r.set.title, r.set.streams, title)}
		for _, e := range r.engines {
			p.bars = append(p.bars, bar{e, median(r.rounds, func(x round) float64 { return value(x[e]) })})
		}
		return p
	}
	all := []panel{
		draw("CPU µs a delivery, one event at a time", func(s sample) float64 { return s.single.perDelivery() }),
		draw(fmt.Sprintf("CPU µs a delivery, %d publishers", busyPublishers), func(s sample) float64 { return s.busy.perDelivery() }),
		draw("bytes of memory an idle stream", func(s sample) float64 { return s.memory }),
	}
	if r.hasShared() {
		all = append(all, draw(fmt.Sprintf("the same, %d streams a connection", shareOfConnection), func(s sample) float64 { return s.shared }))
	}
	return all
}

// perDelivery is the server's CPU time in microseconds.
func (r result) perDelivery() float64 {
	return float64(r.cpu.Nanoseconds()) / 1000 / float64(r.deliveries)
}

// rate is deliveries in a second.
func (r result) rate() float64 { return float64(r.deliveries) / r.took.Seconds() }

// clientCores is how many cores the client kept busy.
func (r result) clientCores() float64 { return r.client.Seconds() / r.took.Seconds() }
