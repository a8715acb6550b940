//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// A storm is many clients that are cut off at once, miss some events, and come
// back at once. Its fields are what the flags say.
type storm struct {
	streams, channels, events, rounds, size int
	dir                                     string
}

// stormLimit bounds the time of a round, whatever happens.
const stormLimit = 15 * time.Minute

func (set *storm) flags(f *flag.FlagSet) {
	f.IntVar(&set.streams, "streams", 5000, "how many streams are cut off and come back")
	f.IntVar(&set.channels, "channels", 100, "over how many channels they are spread, after they were all on one")
	f.IntVar(&set.events, "events", 50, "how many events each of them misses")
	f.IntVar(&set.rounds, "rounds", 3, "how often everything is measured; medians are reported")
	f.IntVar(&set.size, "size", 150, "bytes of data in an event")
	f.StringVar(&set.dir, "dir", "", "where to put the records (default the directory for temporary files)")
}

func (set *storm) check() error {
	// What the hub keeps for replay by default, and its largest request.
	const history, body = 1000, 1 << 20
	switch {
	case set.streams < 1 || set.channels < 1 || set.events < 1 || set.rounds < 1:
		return errors.New("streams, channels, events and rounds must be at least 1")
	case set.channels > set.streams:
		return errors.New("there are more channels than streams")
	case set.events > history:
		return fmt.Errorf("events must be at most %d, which is what a channel keeps", history)
	case set.channels*(set.size+50) > body:
		return fmt.Errorf("an event of %d bytes on each of %d channels is more than a request may hold", set.size, set.channels)
	}
	if err := checkSize(set.size); err != nil {
		return err
	}
	// The server may still have the old connections when the new ones come.
	return checkFiles(2*set.streams, fmt.Sprintf("%d streams that come back", set.streams))
}

func (set *storm) scale(by float64) {
	set.streams, set.channels = scaled(set.streams, by), scaled(set.channels, by)
	set.events = scaled(set.events, by)
}

// repeat takes a third of the rounds: nothing of a storm is checked.
func (set *storm) repeat(rounds int) { set.rounds = (rounds + 2) / 3 }

func (set *storm) limit() time.Duration { return time.Duration(set.rounds) * stormLimit }

func (set *storm) run(ctx context.Context, k *kit) (o outcome, err error) {
	dir, remove, err := recordDir(set.dir)
	if err != nil {
		return outcome{}, err
	}
	defer func() { err = errors.Join(err, remove()) }()
	var rounds []stormRound
	for i := range set.rounds {
		r, err := set.playRound(ctx, k, filepath.Join(dir, strconv.Itoa(i)), i)
		if err != nil {
			return outcome{}, err
		}
		rounds = append(rounds, r)
	}
	return outcome{text: set.report(rounds)}, nil
}

// brokers are what stands behind the hubs that are compared.
var brokers = []string{"memory", "bolt"}

// A refuge is a server in a round, to which the streams come back.
type refuge struct {
	*server
	set      *storm
	broker   string
	channels []string
	costs    map[stormStep]cost
}

// name tells one refuge of a round from another.
func (f *refuge) name() refugeName { return refugeName{f.broker, len(f.channels)} }

type refugeName struct {
	broker   string
	channels int
}

// A stormRound has what each step cost each refuge.
type stormRound map[refugeName]map[stormStep]cost

// spreads are over how many channels the streams are spread.
func (set *storm) spreads() []int {
	if set.channels == 1 {
		return []int{1}
	}
	return []int{1, set.channels}
}

// playRound measures fresh processes with fresh records. Who goes first changes
// from round to round.
func (set *storm) playRound(ctx context.Context, k *kit, dir string, number int) (stormRound, error) {
	var all []*refuge
	for _, n := range set.spreads() {
		for i := range brokers {
			broker := brokers[(number+i)%len(brokers)]
			hub := "broker " + broker
			if broker == "bolt" {
				hub += " " + filepath.Join(dir, strconv.Itoa(n)+".db")
			}
			s, err := startServer(ctx, plan{engine: "caddy", kit: k, hub: hub})
			if err != nil {
				return nil, err
			}
			defer s.stop()
			f := &refuge{server: s, set: set, broker: broker, costs: make(map[stormStep]cost)}
			for c := range n {
				f.channels = append(f.channels, "storm-"+strconv.Itoa(c))
			}
			all = append(all, f)
		}
	}
	for _, part := range stormParts {
		for _, f := range all {
			fmt.Fprintf(os.Stderr, "round %d of %d: %s: %s, channels: %d\n", number+1, set.rounds, part.name, f.broker, len(f.channels))
			if err := part.do(f, ctx); err != nil {
				return nil, fmt.Errorf("%s: %s, channels: %d: %w", part.name, f.broker, len(f.channels), err)
			}
		}
	}
	r := make(stormRound)
	for _, f := range all {
		r[f.name()] = f.costs
	}
	return r, nil
}
