//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"
)

// A fanout is the measurement of what a stream, a delivery and a publish cost.
type fanout struct {
	fanoutKind
	streams, events, rounds, size int
}

// A fanoutKind says what is compared.
type fanoutKind struct {
	title    string
	protocol protocol
	// engines are the servers that are compared. The first is the one to
	// which the others are in proportion.
	engines []string
	steps   []step
	// How many there are by default.
	streams, events int
}

// roundLimit bounds the time of a round, whatever happens.
const roundLimit = 10 * time.Minute

func (set *fanout) flags(f *flag.FlagSet) {
	f.IntVar(&set.streams, "streams", set.fanoutKind.streams, "how many streams each server has")
	f.IntVar(&set.events, "events", set.fanoutKind.events, "how many events are published one after the other")
	f.IntVar(&set.rounds, "rounds", 3, "how often everything is measured; medians are reported")
	f.IntVar(&set.size, "size", 150, "bytes of data in an event")
}

func (set *fanout) check() error {
	if set.streams < 1 || set.events < 1 || set.rounds < 1 {
		return errors.New("streams, events and rounds must be at least 1")
	}
	if err := checkSize(set.size); err != nil {
		return err
	}
	return checkFiles(len(set.engines)*set.streams, fmt.Sprintf("%d streams on each of %d servers", set.streams, len(set.engines)))
}

func (set *fanout) scale(by float64) {
	set.streams = scaled(set.streams, by)
	set.events = scaled(set.events, by)
}

func (set *fanout) repeat(rounds int) { set.rounds = rounds }

func (set *fanout) limit() time.Duration { return time.Duration(set.rounds) * roundLimit }

func (set *fanout) run(ctx context.Context, k *kit) (outcome, error) {
	rounds, notes, err := set.playRounds(ctx, k)
	if err != nil {
		return outcome{}, err
	}
	r := fanoutReport{set, rounds, set.present(rounds)}
	return outcome{r.text(notes), r.checks(), r.panels()}, nil
}

// present are the engines that all rounds have.
func (set *fanout) present(rounds []round) (names []string) {
	for _, e := range set.engines {
		n := 0
		for _, r := range rounds {
			if _, ok := r[e]; ok {
				n++
			}
		}
		if n == len(rounds) {
			names = append(names, e)
		}
	}
	return names
}
