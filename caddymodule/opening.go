package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/caddy-sse/caddy-sse/sse"
)

// The pause before the next attempt to open a hub whose broker cannot be reached, the
// first time and at most. Some of it is taken off at random, since all nodes of a site
// wait for the same Redis.
const (
	leastOpenPause = 250 * time.Millisecond
	mostOpenPause  = 5 * time.Second
)

// A wish is a configuration that wants the hub open.
type wish struct {
	config *Hub
	log    *slog.Logger
}

// errNotOpen is what clients are told of a hub that could not be opened yet. Why is for
// those who run it: it may name what is behind it.
var errNotOpen = fmt.Errorf("%w: it cannot be reached yet", sse.ErrUnavailable)

// open opens the hub, unless an earlier configuration has. If its broker cannot be
// reached, that is no error: all other sites of the configuration would be down for it.
// It is tried again until it works, or no configuration has the hub any more.
func (l *liveHub) open(config *Hub, log *slog.Logger) error {
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.isOpen() {
		return nil
	}
	err := l.tryOpen(wish{config, log})
	if !errors.Is(err, sse.ErrUnavailable) {
		return err
	}
	before := l.away.Swap(&err)
	l.first = wish{config, log}
	if before == nil {
		close(l.late)
		l.running.Go(l.openLater)
	}
	log.Error("cannot open the hub; trying again until it works", slog.String("hub", l.name), slog.Any("error", err))
	return nil
}

// tryOpen opens the hub with the settings of a configuration. The caller holds l.opening.
func (l *liveHub) tryOpen(w wish) error {
	broker, err := w.config.broker.Open(l.name, w.log)
	if err != nil {
		return fmt.Errorf("open hub %s: %w", l.name, err)
	}
	options := w.config.options(w.log)
	hub, err := sse.NewHub(l.gone, broker, options)
	if err != nil {
		return fmt.Errorf("open hub %s: %w", l.name, errors.Join(err, broker.Close()))
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.options, l.drainTime = options, w.config.drain()
	l.broker = broker
	l.hub.Store(hub)
	close(l.opened)
	l.running.Go(l.watch)
	return nil
}

// openLater opens the hub as soon as that can be, unless nobody needs it any more.
func (l *liveHub) openLater() {
	for pause := leastOpenPause; ; pause = min(2*pause, mostOpenPause) {
		select {
		case <-time.After(pause/2 + rand.N(pause/2)):
		case <-l.gone.Done():
			return
		}
		if l.openAgain() {
			return
		}
	}
}

// openAgain reports whether the hub is open.
func (l *liveHub) openAgain() bool {
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.isOpen() {
		return true
	}
	w := l.wanted()
	err := l.tryOpen(w)
	if err == nil {
		w.log.Info("opened the hub", slog.String("hub", l.name))
		l.settle() // another may be in force by now
		return true
	}
	if before := l.away.Swap(&err); (*before).Error() != err.Error() {
		w.log.Error("still cannot open the hub", slog.String("hub", l.name), slog.Any("error", err))
	}
	return false
}

// wanted returns what the configuration in force wants, which may have another password
// than that with which it was tried first. The caller holds l.opening.
func (l *liveHub) wanted() wish {
	l.mu.Lock()
	defer l.mu.Unlock()
	if a, ok := l.apps.current(); ok {
		return wish{a.config(l.name), a.log}
	}
	return l.first
}

func (l *liveHub) isOpen() bool {
	select {
	case <-l.opened:
		return true
	default:
		return false
	}
}

// await returns when the hub can be used. Caddy's apps start in no certain
// order, so a request may come first. It does not wait for a broker that could not be
// reached.
func (l *liveHub) await(ctx context.Context) error {
	if l.isOpen() { // by now
		return nil
	}
	select {
	case <-l.opened:
		return nil
	case <-l.late:
		return errNotOpen
	case <-l.gone.Done():
		return sse.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitOr503 is await for those who run the hub, who are told why it cannot be used.
func (l *liveHub) awaitOr503(ctx context.Context) error {
	err := l.await(ctx)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errNotOpen):
		return problemf(503, "%s; trying again", *l.away.Load()).with("Retry-After", retryAfter)
	}
	return publishProblem(err)
}
