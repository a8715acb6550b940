//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// settings are what the flags say.
type settings struct {
	streams, events, rounds, size int
	out                           string
}

// roundLimit bounds the time of a round, whatever happens.
const roundLimit = 10 * time.Minute

func main() {
	if serveChild(os.Args[1:]) {
		return
	}
	var set settings
	flag.IntVar(&set.streams, "streams", 2000, "how many streams each server has")
	flag.IntVar(&set.events, "events", 300, "how many events are published one after the other")
	flag.IntVar(&set.rounds, "rounds", 3, "how often everything is measured; medians are reported")
	flag.IntVar(&set.size, "size", 150, "bytes of data in an event")
	flag.StringVar(&set.out, "out", "", "the file to write (default results/<date>-<commit>.md)")
	flag.Parse()

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, set); err != nil {
		stop()
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// run measures, prints the report and writes it to a file.
func run(ctx context.Context, set settings) (err error) {
	if err := set.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "caddy-sse-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	fmt.Fprintln(os.Stderr, "building Caddy")
	caddy, err := buildCaddy(ctx, dir)
	if err != nil {
		return err
	}
	subject, err := describe(caddy)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(set.rounds)*roundLimit)
	defer cancel()
	rounds, err := playRounds(ctx, set, caddy)
	if err != nil {
		return err
	}
	text := report(set, subject, rounds)
	fmt.Print(text)
	if set.out == "" {
		set.out = filepath.Join("results", subject.name()+".md")
	}
	if err := os.MkdirAll(filepath.Dir(set.out), 0o755); err != nil {
		return err
	}
	return os.WriteFile(set.out, []byte(text), 0o644)
}

func (set settings) check() error {
	switch {
	case flag.NArg() > 0:
		return fmt.Errorf("%q is not understood; there are only flags", flag.Arg(0))
	case set.streams < 1 || set.events < 1 || set.rounds < 1:
		return errors.New("streams, events and rounds must be at least 1")
	case set.size < stampBytes:
		return fmt.Errorf("size must be at least %d, which an event's time stamp takes", stampBytes)
	}
	// The os package has raised the soft limit to the hard one, here and in
	// every server.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	if need := uint64(len(engines)*set.streams + 100); limit.Max < need {
		return fmt.Errorf("%d streams on each of %d servers need %d files, and this process may open %d: use fewer, or raise ulimit -n",
			set.streams, len(engines), need, limit.Max)
	}
	return nil
}
