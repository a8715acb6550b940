//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

// Reload is the measurement of what reloads of Caddy do to open streams. Its
// fields are what the flags say.
type reload struct {
	streams, reloads, rounds, size int
}

const (
	// mostReloaded bounds the memory behind the reloads in proportion to
	// that before.
	mostReloaded = 1.05
	// reloadEvents is how many events are published for each reload.
	reloadEvents = 6
	// publishTries is how often an event is published that has no answer.
	publishTries = 5
)

func (set *reload) flags(f *flag.FlagSet) {
	f.IntVar(&set.streams, "streams", 10000, "how many streams are open")
	f.IntVar(&set.reloads, "reloads", 3, "how often the configuration is loaded again")
	f.IntVar(&set.rounds, "rounds", 3, "how often everything is measured; medians are reported")
	f.IntVar(&set.size, "size", 150, "bytes of data in an event")
}

func (set *reload) check() error {
	if set.streams < 1 || set.reloads < 1 || set.rounds < 1 {
		return errors.New("streams, reloads and rounds must be at least 1")
	}
	if err := checkSize(set.size); err != nil {
		return err
	}
	return checkFiles(set.streams, fmt.Sprintf("%d streams", set.streams))
}

func (set *reload) scale(by float64) { set.streams = scaled(set.streams, by) }

func (set *reload) repeat(rounds int) { set.rounds = rounds }

func (set *reload) limit() time.Duration { return time.Duration(set.rounds) * roundLimit }

// A reloadRound has what happened to the streams, and the server's memory.
type reloadRound struct {
	dropped, lost int
	again         int // publishes that were repeated
	before, after int
	p99           time.Duration
}

func (r reloadRound) ratio() float64 { return float64(r.after) / float64(r.before) }

func (set *reload) run(ctx context.Context, k *kit) (outcome, error) {
	var rounds []reloadRound
	for i := range set.rounds {
		fmt.Fprintf(os.Stderr, "reloads: round %d of %d\n", i+1, set.rounds)
		r, err := set.playRound(ctx, k)
		if err != nil {
			return outcome{}, fmt.Errorf("reloads: %w", err)
		}
		rounds = append(rounds, r)
	}
	return outcome{
		text: set.report(rounds),
		checks: []check{
			newCheck("streams dropped by reloads", 0, rounds, func(r reloadRound) float64 { return float64(r.dropped) }),
			newCheck("events lost by reloads", 0, rounds, func(r reloadRound) float64 { return float64(r.lost) }),
			newCheck("memory after reloads ÷ before", mostReloaded, rounds, reloadRound.ratio),
		},
	}, nil
}

func (set *reload) playRound(ctx context.Context, k *kit) (r reloadRound, err error) {
	s, err := startServer(ctx, plan{engine: "caddy", kit: k})
	if err != nil {
		return r, err
	}
	defer s.stop()
	wanted := make([]subscription, set.streams)
	for i := range wanted {
		wanted[i].channel = "all"
	}
	first := newSeries(reloadEvents, set.streams, 1)
	a, err := s.open(ctx, wanted, first, steady)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, a.close()) }()
	if err := s.reload(ctx); err != nil { // what it needs once is not counted
		return r, err
	}
	for n := range reloadEvents { // nor for these
		if _, err := set.publish(ctx, s, first.id, n); err != nil {
			return r, fmt.Errorf("publish: %w", err)
		}
	}
	if err := a.wait(ctx, first.complete); err != nil {
		return r, err
	}
	events := newSeries(set.reloads*reloadEvents, set.streams, 1)
	a.expect(events)
	a.counting.Store(true)
	if r.before, err = s.memory(ctx); err != nil {
		return r, err
	}
	if r.again, err = set.publishAndReload(ctx, s, events); err != nil {
		return r, err
	}
	if err := a.wait(ctx, events.complete); err != nil && !errors.Is(err, errSilence) {
		return r, err
	}
	a.mu.Lock()
	r.lost = set.streams*set.reloads*reloadEvents - events.latency.total
	a.mu.Unlock()
	r.p99, r.dropped = events.latency.quantile(0.99), int(a.dropped.Load())
	r.after, err = s.memory(ctx)
	return r, err
}

// publishAndReload publishes events by the clock, and reloads amid each few of
// them. It returns how many publishes had to be repeated.
func (set *reload) publishAndReload(ctx context.Context, s *server, events *series) (again int, err error) {
	every := time.NewTicker(max(time.Second*time.Duration(set.streams)/slowRate, 10*time.Millisecond))
	defer every.Stop()
	reloaded := make(chan error, set.reloads)
	for n := range events.missing {
		if n%reloadEvents == reloadEvents/2 {
			go func() { reloaded <- s.reload(ctx) }()
		}
		repeated, err := set.publish(ctx, s, events.id, n)
		if err != nil {
			return 0, fmt.Errorf("publish: %w", err)
		}
		again += repeated
		select {
		case <-every.C:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	for range set.reloads {
		err = errors.Join(err, <-reloaded)
	}
	return again, err
}

// publish publishes an event as one does that must not be lost: with an id, and
// again if there is no answer. A reload closes connections that wait, also those
// that it has not accepted. It returns how often that was needed.
func (set *reload) publish(ctx context.Context, s *server, series uint32, n int) (again int, err error) {
	path := fmt.Sprintf("/sse/publish/all?id=%d-%d", series, n)
	for again = range publishTries {
		var p *publisher
		if p, err = s.newPoster(ctx, path, "", bytes.Repeat([]byte{'x'}, set.size), []int{0}, set.size); err != nil {
			continue
		}
		err = p.post(series, n)
		p.close()
		if err == nil {
			break
		}
	}
	return again, err
}

// reload has Caddy load its configuration again, as `caddy reload --force`
// does.
func (s *server) reload(ctx context.Context) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+s.adminAt+"/load", bytes.NewReader(s.config()))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "text/caddyfile")
	r.Header.Set("Cache-Control", "must-revalidate")
	r.Close = true
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return fmt.Errorf("reload: %w", err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(answer.Body)
		return fmt.Errorf("reload: %s: %s", answer.Status, text)
	}
	return nil
}

func (set *reload) report(rounds []reloadRound) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\n## %d reloads with %d streams\n\n", set.reloads, set.streams)
	fmt.Fprintf(&b, "%d events are published meanwhile. Medians of %d rounds, memory after a garbage collection.\n\n", set.reloads*reloadEvents, set.rounds)
	tableHead(&b, "streams dropped", "events lost", "publishes repeated", "p99 ms", "memory before MB", "after MB", "after ÷ before", "KB a reload")
	of := func(value func(reloadRound) float64) float64 { return median(rounds, value) }
	tableRow(&b,
		fmt.Sprintf("%.0f", of(func(r reloadRound) float64 { return float64(r.dropped) })),
		fmt.Sprintf("%.0f", of(func(r reloadRound) float64 { return float64(r.lost) })),
		fmt.Sprintf("%.0f", of(func(r reloadRound) float64 { return float64(r.again) })),
		fmt.Sprintf("%.1f", of(func(r reloadRound) float64 { return milliseconds(r.p99) })),
		fmt.Sprintf("%.1f", of(func(r reloadRound) float64 { return float64(r.before) / 1e6 })),
		fmt.Sprintf("%.1f", of(func(r reloadRound) float64 { return float64(r.after) / 1e6 })),
		spread(rounds, reloadRound.ratio),
		fmt.Sprintf("%.0f", of(func(r reloadRound) float64 { return float64(r.after-r.before) / float64(set.reloads) / 1e3 })))
	return b.String()
}
