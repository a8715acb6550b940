//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Slow is the measurement of what one subscriber who never reads costs the
// others and the server. Its fields are what the flags say.
type slow struct {
	streams, megabytes, rounds, size int
	every                            time.Duration
}

const (
	// mostSlow bounds the p99 of the others in proportion to that without
	// the slow one, and mostGrowth the bytes that the server grows by with it.
	mostSlow   = 1.2
	mostGrowth = 2e6
)

func (set *slow) flags(f *flag.FlagSet) {
	f.IntVar(&set.streams, "streams", 1000, "how many streams read")
	f.IntVar(&set.megabytes, "megabytes", 100, "how much is published in all, in events")
	f.IntVar(&set.rounds, "rounds", 3, "in how many parts that is done, in turns with a server without the slow subscriber")
	f.IntVar(&set.size, "size", 16384, "bytes of data in an event")
	f.DurationVar(&set.every, "every", 35*time.Millisecond, "the time between two events")
}

func (set *slow) check() error {
	if set.streams < 1 || set.megabytes < 1 || set.rounds < 1 || set.every <= 0 {
		return errors.New("streams, megabytes, rounds and every must be positive")
	}
	if err := checkSize(set.size); err != nil {
		return err
	}
	return checkFiles(2*set.streams, fmt.Sprintf("%d streams on each of 2 servers", set.streams))
}

func (set *slow) scale(by float64) {
	set.streams = scaled(set.streams, by)
	set.megabytes = scaled(set.megabytes, by)
}

func (set *slow) repeat(rounds int) { set.rounds = rounds }

func (set *slow) limit() time.Duration {
	return roundLimit + 4*time.Duration(set.events())*set.every
}

// events is how many are published with the slow subscriber; without it, a third.
func (set *slow) events() int { return set.megabytes * 1_000_000 / set.size }

// A slowRound has what the others got without the slow subscriber, and with it.
type slowRound struct{ without, with result }

func (r slowRound) ratio() float64 { return r.with.p99.Seconds() / r.without.p99.Seconds() }

func (set *slow) run(ctx context.Context, k *kit) (outcome, error) {
	without, err := set.newSide(ctx, k)
	if err != nil {
		return outcome{}, err
	}
	defer without.stop()
	with, err := set.newSide(ctx, k)
	if err != nil {
		return outcome{}, err
	}
	defer with.stop()
	stuck, err := neverRead(with.server)
	if err != nil {
		return outcome{}, err
	}
	defer func() { _ = unix.Close(stuck) }()
	var rounds []slowRound
	for i := range set.rounds {
		fmt.Fprintf(os.Stderr, "a subscriber who never reads: round %d of %d\n", i+1, set.rounds)
		var r slowRound
		if r.without, err = without.publishPaced(ctx, set, set.events()/set.rounds/3); err != nil {
			return outcome{}, fmt.Errorf("without a slow subscriber: %w", err)
		}
		if r.with, err = with.publishPaced(ctx, set, set.events()/set.rounds); err != nil {
			return outcome{}, fmt.Errorf("with a slow subscriber: %w", err)
		}
		rounds = append(rounds, r)
	}
	return set.tell(ctx, rounds, without, with)
}

// A side is a server whose memory is watched, but for what it keeps for replay:
// that is evicted by the segment, and goes up and down by megabytes.
type side struct {
	*contestant
	before int
}

func (set *slow) newSide(ctx context.Context, k *kit) (*side, error) {
	s, err := startServer(ctx, plan{engine: "caddy", kit: k})
	if err != nil {
		return nil, err
	}
	c := &side{contestant: &contestant{server: s, fanout: &fanout{size: set.size}}}
	err = c.subscribe(ctx, set.streams, func(int) string { return "all" })
	if err == nil {
		_, err = c.publishPaced(ctx, set, 10)
	}
	if err == nil {
		c.before, err = c.unkept(ctx)
	}
	if err != nil {
		s.stop()
	}
	return c, err
}

func (s *side) publishPaced(ctx context.Context, set *slow, events int) (result, error) {
	return s.apply(ctx, load{events: max(events, 1), receivers: set.streams, publishers: 1, every: set.every})
}

// unkept returns the memory of the server that holds no kept events.
func (s *side) unkept(ctx context.Context) (int, error) {
	all, err := s.server.memory(ctx)
	if err != nil {
		return 0, err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.publishAt+"/sse", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	var hub struct {
		Kept int `json:"kept_bytes"`
	}
	err = json.NewDecoder(answer.Body).Decode(&hub)
	if err == nil && hub.Kept == 0 {
		err = fmt.Errorf("the hub does not say what it keeps: %s", answer.Status)
	}
	return all - hub.Kept, err
}

// neverRead subscribes, and leaves everything that is sent unread.
func neverRead(s *server) (socket int, err error) {
	at, err := net.ResolveTCPAddr("tcp4", s.streamsAt)
	if err != nil {
		return 0, err
	}
	fd, err := dialRaw(at)
	if err != nil {
		return 0, err
	}
	if _, err := unix.Write(fd, subscription{channel: "all"}.request(s.streamsAt)); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (set *slow) tell(ctx context.Context, rounds []slowRound, without, with *side) (outcome, error) {
	after, err := with.unkept(ctx)
	if err != nil {
		return outcome{}, err
	}
	o := outcome{checks: []check{
		newCheck("p99 of the others with one who never reads ÷ without", mostSlow, rounds, slowRound.ratio),
		{"bytes that memory grows by beyond what is kept", mostGrowth, []float64{float64(after - with.before)}},
	}}
	var b strings.Builder
	fmt.Fprintf(&b, "\n## One of %d subscribers never reads\n\n", set.streams+1)
	fmt.Fprintf(&b, "%d MB in events of %d bytes, one every %s. Medians of %d rounds.\n\n", set.megabytes, set.size, set.every, set.rounds)
	tableHead(&b, "", "p50 ms", "p99 ms", "÷ without", "memory grown beyond what is kept by MB")
	row := func(name string, of func(slowRound) result, ratio, grown string) {
		tableRow(&b, name,
			fmt.Sprintf("%.2f", median(rounds, func(r slowRound) float64 { return milliseconds(of(r).p50) })),
			fmt.Sprintf("%.2f", median(rounds, func(r slowRound) float64 { return milliseconds(of(r).p99) })),
			ratio, grown)
	}
	row("without it", func(r slowRound) result { return r.without }, "1.00", "-")
	row("with it", func(r slowRound) result { return r.with }, spread(rounds, slowRound.ratio), fmt.Sprintf("%.2f", float64(after-with.before)/1e6))
	o.text = b.String()
	return o, errors.Join(without.leave(), with.leave())
}
