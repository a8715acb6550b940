package caddymodule

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"

	"github.com/caddy-sse/caddy-sse/sse"
)

// What outlives a configuration is in these pools: Caddy starts the next
// configuration before it cleans up the last, so a hub or route that is in
// both is never without a reference.
var (
	hubs   = caddy.NewUsagePool() // *liveHub by hubKey
	routes = caddy.NewUsagePool() // *route by routeKey
)

// A hubKey is a hub's identity. It leaves out all that can be changed on a live
// hub.
type hubKey struct{ name, broker string }

// A liveHub is a hub with its broker.
type liveHub struct {
	*sse.Hub
	name   string
	key    hubKey
	broker sse.Broker
}

// acquireHub returns the live hub of that identity, which it opens if needed.
// The caller owes the pool a Delete.
func acquireHub(name string, config *Hub, log *slog.Logger) (*liveHub, error) {
	key := hubKey{name, config.broker.Identity()}
	value, _, err := hubs.LoadOrNew(key, func() (caddy.Destructor, error) {
		broker, err := config.broker.Open(log)
		if err != nil {
			return nil, err
		}
		hub, err := sse.NewHub(context.Background(), broker, config.options(log))
		if err != nil {
			return nil, errors.Join(err, broker.Close())
		}
		return &liveHub{Hub: hub, name: name, key: key, broker: broker}, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*liveHub), nil
}

// Destruct implements caddy.Destructor: no configuration uses the hub any more.
func (l *liveHub) Destruct() error {
	l.Close()
	return l.broker.Close()
}

// liveHubs returns all hubs of the process, sorted by name.
func liveHubs() []*liveHub {
	var found []*liveHub
	hubs.Range(func(_, value any) bool {
		found = append(found, value.(*liveHub))
		return true
	})
	slices.SortFunc(found, func(a, b *liveHub) int { return strings.Compare(a.name, b.name) })
	return found
}

// A route is the streams of a subscriber endpoint. They live as long as a
// configuration has a route of the same identity, see routeKey.
type route struct {
	mu      sync.Mutex // guards what follows
	streams map[*sse.Subscriber]struct{}
	gone    bool
}

func newRoute() (caddy.Destructor, error) {
	return &route{streams: make(map[*sse.Subscriber]struct{})}, nil
}

// admission is what a route says to a new stream.
type admission int

const (
	admitted admission = iota
	full
	removed
)

// add admits a stream unless the route has as many as the limit, if that is
// positive, or is no longer configured.
func (r *route) add(s *sse.Subscriber, limit int) admission {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.gone:
		return removed
	case limit > 0 && len(r.streams) >= limit:
		return full
	}
	r.streams[s] = struct{}{}
	return admitted
}

func (r *route) remove(s *sse.Subscriber) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.streams, s)
}

// Destruct implements caddy.Destructor: the route is gone, and so are its
// streams.
func (r *route) Destruct() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	for s := range r.streams {
		s.Close(sse.CloseDrain)
	}
	return nil
}
