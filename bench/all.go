//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"
)

// All is every measurement but that of the record, one after the other.
type all struct {
	size   float64
	rounds int
	parts  []part
}

// A part is a measurement whose sizes can be changed together.
type part interface {
	measurement
	// scale multiplies how much is measured.
	scale(by float64)
	// repeat sets how often.
	repeat(rounds int)
}

func (set *all) flags(f *flag.FlagSet) {
	f.Float64Var(&set.size, "scale", 1, "multiplies streams, events and bytes: 0.1 is over quickly, and tells little")
	f.IntVar(&set.rounds, "rounds", 3, "how often everything is measured; medians are reported")
}

func (set *all) check() error {
	if set.size <= 0 || set.rounds < 1 {
		return errors.New("scale must be positive, and rounds at least 1")
	}
	set.parts = []part{
		&fanout{fanoutKind: plainFanout}, &fanout{fanoutKind: tlsFanout}, &fanout{fanoutKind: h2Fanout},
		&fanout{fanoutKind: peersFanout}, new(burst), new(slow), new(reload), new(storm), new(redis),
	}
	for _, p := range set.parts {
		p.flags(flag.NewFlagSet("", flag.ContinueOnError)) // sets the defaults
		p.scale(set.size)
		p.repeat(set.rounds)
		if err := p.check(); err != nil {
			return err
		}
	}
	return nil
}

func (set *all) limit() (sum time.Duration) {
	for _, p := range set.parts {
		sum += p.limit()
	}
	return sum
}

// run goes on with the next part if one fails, so that a long run is not for
// nothing.
func (set *all) run(ctx context.Context, k *kit) (o outcome, err error) {
	for _, p := range set.parts {
		told, failed := p.run(ctx, k)
		if failed != nil {
			fmt.Fprintln(os.Stderr, "failed:", failed)
			err = errors.Join(err, failed)
		}
		o.add(told)
		if ctx.Err() != nil {
			break
		}
	}
	return o, err
}

func scaled(n int, by float64) int { return max(int(float64(n)*by), 1) }
