//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"
)

// A burst is the measurement of how long one event takes to a very large
// audience. Its fields are what the flags say.
type burst struct{ streams, events, rounds, size int }

// mostBurst bounds the p99 of Caddy in proportion to the loop's.
const mostBurst = 1.3

// bursters are compared: the first is the floor.
var bursters = []string{"loop", "caddy"}

func (set *burst) flags(f *flag.FlagSet) {
	f.IntVar(&set.streams, "streams", 15000, "how many streams a server has")
	f.IntVar(&set.events, "events", 30, "how many events are published one after the other")
	f.IntVar(&set.rounds, "rounds", 3, "how often everything is measured; medians are reported")
	f.IntVar(&set.size, "size", 150, "bytes of data in an event")
}

func (set *burst) check() error {
	if set.streams < 1 || set.events < 1 || set.rounds < 1 {
		return errors.New("streams, events and rounds must be at least 1")
	}
	if err := checkSize(set.size); err != nil {
		return err
	}
	return checkFiles(set.streams, fmt.Sprintf("%d streams", set.streams))
}

func (set *burst) scale(by float64) {
	set.streams = scaled(set.streams, by)
	set.events = scaled(set.events, by)
}

func (set *burst) repeat(rounds int) { set.rounds = rounds }

func (set *burst) limit() time.Duration { return time.Duration(set.rounds) * roundLimit }

func (set *burst) run(ctx context.Context, k *kit) (outcome, error) {
	var rounds []map[string]result
	for i := range set.rounds {
		r := make(map[string]result)
		for n := range bursters {
			e := bursters[(i+n)%len(bursters)]
			fmt.Fprintf(os.Stderr, "one event to %d streams: round %d of %d: %s\n", set.streams, i+1, set.rounds, e)
			var err error
			if r[e], err = set.measure(ctx, plan{engine: e, kit: k}); err != nil {
				return outcome{}, fmt.Errorf("one event to %d streams: %s: %w", set.streams, e, err)
			}
		}
		rounds = append(rounds, r)
	}
	ratio := func(r map[string]result) float64 { return r["caddy"].p99.Seconds() / r[bursters[0]].p99.Seconds() }
	return outcome{
		text:   set.report(rounds, ratio),
		checks: []check{newCheck(fmt.Sprintf("p99 of one event to %d streams ÷ loop", set.streams), mostBurst, rounds, ratio)},
	}, nil
}

// measure has one server at a time, since a process cannot have the files for
// the streams of two.
func (set *burst) measure(ctx context.Context, p plan) (result, error) {
	s, err := startServer(ctx, p)
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	c := &contestant{server: s, fanout: &fanout{size: set.size}}
	if err := c.subscribe(ctx, set.streams, func(int) string { return "all" }); err != nil {
		return result{}, err
	}
	r, err := c.measure(ctx, load{events: set.events, receivers: set.streams, publishers: 1})
	return r, errors.Join(err, c.leave())
}

func (set *burst) report(rounds []map[string]result, ratio func(map[string]result) float64) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## One event to %d streams\n\nMedians of %d interleaved rounds, one server at a time.\n\n", set.streams, set.rounds)
	tableHead(&b, "engine", "p50 ms", "p99 ms", "× loop", "CPU µs a delivery")
	for _, e := range bursters {
		of := func(value func(result) float64) string {
			return fmt.Sprintf("%.2f", median(rounds, func(r map[string]result) float64 { return value(r[e]) }))
		}
		times := "1.00"
		if e == "caddy" {
			times = spread(rounds, ratio)
		}
		tableRow(&b, e, of(func(r result) float64 { return milliseconds(r.p50) }),
			of(func(r result) float64 { return milliseconds(r.p99) }), times, of(result.perDelivery))
	}
	return b.String()
}
