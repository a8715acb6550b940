//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"time"
)

// settings are those of the fan-out, which is measured where no word asks for
// something else.
type settings struct {
	streams, events, rounds, size int
}

// roundLimit bounds the time of a round, whatever happens.
const roundLimit = 10 * time.Minute

func (set *settings) flags(f *flag.FlagSet) {
	f.IntVar(&set.streams, "streams", 2000, "how many streams each server has")
	f.IntVar(&set.events, "events", 300, "how many events are published one after the other")
	f.IntVar(&set.rounds, "rounds", 3, "how often everything is measured; medians are reported")
	f.IntVar(&set.size, "size", 150, "bytes of data in an event")
}

func (set *settings) check() error {
	if set.streams < 1 || set.events < 1 || set.rounds < 1 {
		return errors.New("streams, events and rounds must be at least 1")
	}
	if err := checkSize(set.size); err != nil {
		return err
	}
	return checkFiles(len(engines)*set.streams, fmt.Sprintf("%d streams on each of %d servers", set.streams, len(engines)))
}

func (set *settings) limit() time.Duration { return time.Duration(set.rounds) * roundLimit }

func (set *settings) run(ctx context.Context, caddy string) (string, error) {
	rounds, err := playRounds(ctx, *set, caddy)
	if err != nil {
		return "", err
	}
	return report(*set, rounds), nil
}
