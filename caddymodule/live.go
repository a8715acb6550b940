package caddymodule

import (
	"context"
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
	opened  chan struct{}           // closed when the hub can be used
	gone    context.Context         // done when no configuration has it any more
	end     context.CancelFunc
	running sync.WaitGroup // what opens and watches it

	opening sync.Mutex            // is held while it is opened, and guards first
	first   wish                  // with what it was tried at first
	late    chan struct{}         // closed when that failed, and it is tried again
	away    atomic.Pointer[error] // why the last attempt failed

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
		l := &liveHub{name: name, key: key, opened: make(chan struct{}), late: make(chan struct{})}
		l.gone, l.end = context.WithCancel(context.Background())
		return l, nil
	})
	if err != nil {
		return nil, err
	}
	return value.(*liveHub), nil
}

// current returns the hub, which must be open. It may be another one the next time.
func (l *liveHub) current() *sse.Hub { return l.hub.Load() }

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
	l.apps.end(a)
	l.settleLocked() // even if it had not started: it may have opened the hub
}

// settle gives the hub the settings in force, if there are any.
func (l *liveHub) settle() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.settleLocked()
}

func (l *liveHub) settleLocked() {
	if a, ok := l.apps.current(); ok {
		l.enforce(a)
	}
}

// enforce does nothing to a hub that is not open: it is given the settings in force
// when it is.
func (l *liveHub) enforce(a *App) {
	if !l.isOpen() {
		return
	}
	config := a.config(l.name)
	config.broker.Apply(l.broker, a.log)
	l.options = config.options(a.log)
	l.drainTime = config.drain()
	l.current().SetOptions(l.options)
}

// Destruct implements caddy.Destructor: no configuration uses the hub any more. It waits
// for an attempt to open it, which brokers bound.
func (l *liveHub) Destruct() error {
	l.end()
	l.running.Wait()
	if !l.isOpen() {
		return nil
	}
	l.current().Close()
	return l.broker.Close()
}

// liveHubs returns all hubs of the process that are open, sorted by name.
func liveHubs() []*liveHub {
	return slices.DeleteFunc(allHubs(), func(l *liveHub) bool { return !l.isOpen() })
}

// allHubs returns the others as well.
func allHubs() []*liveHub {
	var found []*liveHub
	hubs.Range(func(_, value any) bool {
		found = append(found, value.(*liveHub))
		return true
	})
	slices.SortFunc(found, func(a, b *liveHub) int { return strings.Compare(a.name, b.name) })
	return found
}
