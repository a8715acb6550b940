//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// A record is the run of many events through a hub that keeps a few of them in
// a file. Its fields are what the flags say.
type record struct {
	events, keep, rounds, size int
	sharing                    time.Duration
	dir                        string
}

const (
	// rows is in how many parts the events are published, each of which is
	// told of.
	rows = 10
	// feeds is how many publishers send lines.
	feeds = 4
	// recordChannels stands for the channels of all publishers.
	recordChannels = "record-*"
	// leastRate is how many events a second there must be, for the run to end
	// within its limit.
	leastRate = 1000
)

func (set *record) flags(f *flag.FlagSet) {
	f.IntVar(&set.events, "events", 10_000_000, "how many events are published as lines")
	f.IntVar(&set.keep, "keep", 100_000, "how many of them the record keeps")
	f.IntVar(&set.rounds, "rounds", 3, "how often it is measured what shared commits gain; medians are reported")
	f.DurationVar(&set.sharing, "sharing", 5*time.Second, "for how long each of these measurements publishes")
	f.IntVar(&set.size, "size", 150, "bytes of data in an event")
	f.StringVar(&set.dir, "dir", "", "where to put the record (default the directory for temporary files)")
}

func (set *record) check() error {
	switch {
	case set.events < rows*feeds:
		return fmt.Errorf("events must be at least %d", rows*feeds)
	case set.keep < 1 || set.rounds < 1:
		return errors.New("keep and rounds must be at least 1")
	case set.sharing <= 0:
		return errors.New("sharing must be positive")
	}
	return checkSize(set.size)
}

func (set *record) limit() time.Duration {
	return roundLimit + time.Duration(set.events/leastRate)*time.Second + 3*time.Duration(set.rounds)*set.sharing
}

// recordHub is one that keeps so many events in a file.
const recordHub = `broker bolt %s {
			max_events %d
		}`

func (set *record) run(ctx context.Context, k *kit) (o outcome, err error) {
	dir, remove, err := recordDir(set.dir)
	if err != nil {
		return outcome{}, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	file := filepath.Join(dir, "record.db")
	s, err := startServer(ctx, plan{engine: "caddy", kit: k, hub: fmt.Sprintf(recordHub, file, set.keep)})
	if err != nil {
		return outcome{}, err
	}
	defer s.stop()
	parts, err := set.fill(ctx, s, file)
	if err != nil {
		return outcome{}, err
	}
	var shares []share
	for i := range set.rounds {
		fmt.Fprintf(os.Stderr, "shared commits: round %d of %d\n", i+1, set.rounds)
		sh, err := set.measureSharing(ctx, s, dir)
		if err != nil {
			return outcome{}, err
		}
		shares = append(shares, sh)
	}
	return outcome{text: set.report(parts, shares)}, nil
}
