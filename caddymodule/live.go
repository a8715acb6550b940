package caddymodule

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

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

// A liveHub is a hub with its broker. It is opened when the first configuration
// that has it starts, not when that is provisioned: `caddy validate` provisions
// a configuration too, and must neither create a file nor fail because the
// Caddy that runs has it open.
type liveHub struct {
	name    string
	key     hubKey
	broker  sse.Broker
	hub     atomic.Pointer[sse.Hub] // once it is opened; another one when its record was lost
	opening sync.Mutex
	opened  chan struct{}   // closed when the hub can be used
	gone    context.Context // done when no configuration has it any more
	end     context.CancelFunc
	running sync.WaitGroup // what watches it

	mu   sync.Mutex // guards apps, and is held while one is applied
	apps succession[*App]
	// What the one in force says.
	options   sse.Options
	drainTime time.Duration

	lineStreams atomic.Int64 // requests that are open and publish lines
	refused     refusalCounter
}

// acquireHub returns the live hub of that identity. The caller owes the pool a
// Delete.
func acquireHub(name string, config *Hub) (*liveHub, error) {
	key := hubKey{name, config.broker.Identity()}
	value, _, err := hubs.LoadOrNew(key, func() (caddy.Destructor, error) {
		l := &liveHub{name: name, key: key, opened: make(chan struct{})}
		l.gone, l.end = context.WithCancel(context.Background())
		return l, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*liveHub), nil
}

// open opens the hub, unless an earlier configuration has.
func (l *liveHub) open(config *Hub, log *slog.Logger) error {
	l.opening.Lock()
	defer l.opening.Unlock()
	if l.isOpen() {
		return nil
	}
	broker, err := config.broker.Open(log)
	if err != nil {
		return fmt.Errorf("open hub %s: %w", l.name, err)
	}
	l.options, l.drainTime = config.options(log), config.drain()
	hub, err := sse.NewHub(context.Background(), broker, l.options)
	if err != nil {
		return fmt.Errorf("open hub %s: %w", l.name, errors.Join(err, broker.Close()))
	}
	l.broker = broker
	l.hub.Store(hub)
	close(l.opened)
	l.running.Go(l.watch)
	return nil
}

// current returns the hub, which must be open. It may be another one the next time.
func (l *liveHub) current() *sse.Hub { return l.hub.Load() }

func (l *liveHub) isOpen() bool {
	select {
	case <-l.opened:
		return true
	default:
		return false
	}
}

// await returns when the hub can be used. Caddy's apps start in no certain
// order, so a request may come first.
func (l *liveHub) await(ctx context.Context) error {
	select {
	case <-l.opened:
		return nil
	case <-l.gone.Done():
		return sse.ErrClosed
	case <-ctx.Done():
		return ctx.Err()
	}
}

// apply gives the hub the settings of a configuration that has started.
func (l *liveHub) apply(a *App) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.apps.begin(a)
	l.enforce(a)
}

// retire ends the use of the settings of a configuration that is no more.
func (l *liveHub) retire(a *App) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before, changed := l.apps.end(a); changed {
		l.enforce(before)
	}
}

func (l *liveHub) enforce(a *App) {
	config := a.config(l.name)
	config.broker.Apply(l.broker, a.log)
	l.options = config.options(a.log)
	l.drainTime = config.drain()
	l.current().SetOptions(l.options)
}

// Destruct implements caddy.Destructor: no configuration uses the hub any more.
func (l *liveHub) Destruct() error {
	l.end()
	if !l.isOpen() {
		return nil
	}
	l.running.Wait()
	l.current().Close()
	return l.broker.Close()
}

// liveHubs returns all hubs of the process that are open, sorted by name.
func liveHubs() []*liveHub {
	var found []*liveHub
	hubs.Range(func(_, value any) bool {
		if live := value.(*liveHub); live.isOpen() {
			found = append(found, live)
		}
		return true
	})
	slices.SortFunc(found, func(a, b *liveHub) int { return strings.Compare(a.name, b.name) })
	return found
}
