// Feeder reads the load of this machine (CPU, memory, network and disk) and
// publishes it to a Server-Sent Events hub, as any app would: one HTTP POST
// per interval, which carries one event for each of the channels metrics-cpu,
// metrics-memory, metrics-network and metrics-disk.
//
// It needs no library for that, only the address of the hub:
//
//	feeder -publish http://localhost:2019/sse/publish
//
// It waits for a hub that is not there yet, and for one that went away.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	// requestTimeout bounds one publish, so that a hub which accepts the
	// connection and never answers counts as unreachable.
	requestTimeout = 5 * time.Second
	// maxBackoff keeps a returning hub from waiting long for its figures.
	maxBackoff = 10 * time.Second
)

func main() {
	address := flag.String("publish", "http://localhost:2019/sse/publish", "`URL` to publish to")
	interval := flag.Duration("interval", time.Second, "time between two readings")
	token := flag.String("token", "", "bearer token, if the hub asks for one")
	flag.Parse()

	if err := validate(*address, *interval); err != nil {
		fmt.Fprintln(os.Stderr, "feeder:", err)
		os.Exit(2)
	}

	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	f := &feeder{
		reader:    newReader(slog.Default()),
		publisher: &publisher{client: &http.Client{Timeout: requestTimeout}, url: *address, token: *token},
		interval:  *interval,
		log:       slog.Default().With("url", *address),
	}
	f.run(ctx)
}

func validate(address string, interval time.Duration) error {
	u, err := url.Parse(address)
	if err != nil {
		return fmt.Errorf("-publish: %w", err)
	}
	if (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return fmt.Errorf("-publish: %q is not an http address", address)
	}
	if interval <= 0 {
		return errors.New("-interval: must be more than zero")
	}
	return nil
}

// feeder moves figures from the reader to the publisher, one batch at a time.
type feeder struct {
	reader    *reader
	publisher *publisher
	interval  time.Duration
	log       *slog.Logger
	state     string // the last one logged
}

// run returns when ctx ends. A batch that could not be published is dropped:
// the next one carries newer figures, and its rates cover the time between.
func (f *feeder) run(ctx context.Context) {
	f.reader.read(ctx) // rates and percentages need an earlier reading to compare with

	wait := f.interval
	for sleep(ctx, wait) {
		err := f.publisher.publish(ctx, f.reader.read(ctx))
		if ctx.Err() != nil {
			return
		}
		f.report(err)
		wait = nextWait(f.interval, wait, err)
	}
}

// report logs what changed since the last publish, and nothing when nothing did.
func (f *feeder) report(err error) {
	state := "publishing"
	switch refused, ok := errors.AsType[*refusal](err); {
	case ok:
		state = "refused: " + refused.Error()
	case err != nil:
		// Without the error's text, which may differ at each attempt by no
		// more than a port number.
		state = "unreachable"
	}
	if state == f.state {
		return
	}
	f.state = state

	if err == nil {
		f.log.Info("publishing")
		return
	}
	f.log.Warn("cannot publish, will keep trying", "error", err)
}

// nextWait doubles the wait after each failure, and takes the hub's word for
// it when it names a longer one.
func nextWait(interval, last time.Duration, err error) time.Duration {
	if err == nil {
		return interval
	}
	wait := max(interval, min(2*last, maxBackoff))
	if refused, ok := errors.AsType[*refusal](err); ok {
		wait = max(wait, refused.retryAfter)
	}
	return wait
}

// sleep reports whether it slept to the end, which it does unless ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
