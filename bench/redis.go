//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"time"
)

// A redis is the measurement of what it costs that several nodes share a record
// in Redis. Its fields are what the flags say.
type redis struct {
	streams, events, rate, rounds, size int
	lasting                             time.Duration
	appending                           string
}

const (
	// clusterNodes is how many nodes share a record where publishes come by the
	// clock; elsewhere they are two.
	clusterNodes = 3
	// perChannel is how many streams of each node an event of theirs is for.
	perChannel = 10
	// mostLag bounds how many seconds a node is behind publishers at pacedPart of the
	// highest rate: one that does not keep up falls behind further and further.
	mostLag = 1
)

func (set *redis) flags(f *flag.FlagSet) {
	f.IntVar(&set.streams, "streams", 5000, "how many streams a node has")
	f.IntVar(&set.events, "events", 3000, "how many events are published to measure the latency")
	f.IntVar(&set.rate, "rate", 1000, fmt.Sprintf("how many events a second are published to %d nodes", clusterNodes))
	f.DurationVar(&set.lasting, "lasting", 12*time.Second, "for how long events are published at each rate")
	f.IntVar(&set.rounds, "rounds", 3, "how often everything is measured; medians are reported")
	f.IntVar(&set.size, "size", 150, "bytes of data in an event")
	f.StringVar(&set.appending, "append", "no", "whether and how Redis logs what it keeps: no, everysec or always")
}

func (set *redis) check() error {
	switch {
	case set.streams < 1 || set.events < 1 || set.rate < 1 || set.rounds < 1:
		return errors.New("streams, events, rate and rounds must be at least 1")
	case set.lasting <= 0:
		return errors.New("lasting must be positive")
	case !slices.Contains([]string{"no", "everysec", "always"}, set.appending):
		return fmt.Errorf("append must be no, everysec or always, not %q", set.appending)
	}
	if err := checkSize(set.size); err != nil {
		return err
	}
	return checkFiles(clusterNodes*set.streams, fmt.Sprintf("%d streams on each of %d nodes", set.streams, clusterNodes))
}

func (set *redis) scale(by float64) {
	set.streams, set.events, set.rate = scaled(set.streams, by), scaled(set.events, by), scaled(set.rate, by)
	set.lasting = time.Duration(float64(set.lasting) * by)
}

func (set *redis) repeat(rounds int) { set.rounds = rounds }

func (set *redis) limit() time.Duration {
	return time.Duration(set.rounds) * (roundLimit + 5*set.lasting)
}

// A redisRound is all that one round told.
type redisRound struct {
	latency  []hop
	tails    []tailResult
	together flowResult
	follow   []flowResult // as followings has them
}

func (set *redis) run(ctx context.Context, k *kit) (outcome, error) {
	if missing := redisEngine.missing(); missing != "" {
		return outcome{text: "\n## Redis\n\nredis is left out: " + missing + "\n"}, nil
	}
	var rounds []redisRound
	for i := range set.rounds {
		r, err := set.playRound(ctx, k, i)
		if err != nil {
			return outcome{}, fmt.Errorf("redis: round %d: %w", i+1, err)
		}
		rounds = append(rounds, r)
	}
	o := outcome{text: set.report(rounds)}
	for i, t := range tails {
		o.checks = append(o.checks, newCheck(
			fmt.Sprintf("redis: seconds that a node is behind at last, which has a stream for one event of %d", t.channelsPerStream),
			mostLag, rounds, func(r redisRound) float64 { return r.tails[i].paced.worst[1].Seconds() }))
	}
	return o, nil
}

// playRound measures everything once.
func (set *redis) playRound(ctx context.Context, k *kit, number int) (r redisRound, err error) {
	tell := func(what string) { fmt.Fprintf(os.Stderr, "redis: round %d of %d: %s\n", number+1, set.rounds, what) }
	tell("latency")
	if r.latency, err = set.measureLatency(ctx, k, number); err != nil {
		return r, fmt.Errorf("latency: %w", err)
	}
	for _, t := range tails {
		what := fmt.Sprintf("the highest rate, one event of %d for a stream", t.channelsPerStream)
		tell(what)
		told, err := set.measureTail(ctx, k, t)
		if err != nil {
			return r, fmt.Errorf("%s: %w", what, err)
		}
		r.tails = append(r.tails, told)
	}
	tell(fmt.Sprintf("%d nodes", clusterNodes))
	if r.together, err = set.measureTogether(ctx, k); err != nil {
		return r, fmt.Errorf("%d nodes: %w", clusterNodes, err)
	}
	tell("those who follow")
	for _, g := range followings {
		told, err := set.measureFollowing(ctx, k, g)
		if err != nil {
			return r, fmt.Errorf("%d followers of %d events a second: %w", g.followers, g.rate, err)
		}
		r.follow = append(r.follow, told)
	}
	return r, nil
}

// logs says what Redis does with its log.
func (set *redis) logs() string {
	if set.appending == "no" {
		return "Redis keeps its record in memory alone (`appendonly no`)"
	}
	return "Redis logs to the disk (`appendonly yes`, `appendfsync " + set.appending + "`)"
}
