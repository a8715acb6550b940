package caddymodule

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/caddy-sse/caddy-sse/sse"
)

func init() {
	caddy.RegisterModule(new(App))
}

// DefaultHub is the name of the hub that is used where none is named. It need
// not be configured.
const DefaultHub = "default"

// App holds the hubs: each orders the events that are published to it, keeps
// the recent ones, and delivers them to its subscribers. Hubs and their events
// outlive a reload of the configuration.
//
// A hub named `default` is there without being configured.
type App struct {
	// The hubs by name.
	Hubs map[string]*Hub `json:"hubs,omitempty"`

	ctx  caddy.Context
	log  *slog.Logger
	mu   sync.Mutex          // guards what follows
	held map[string]*liveHub // by name; each is one reference into the pool

	subscribing []*Subscribe     // the handlers of the configuration
	places      map[routeKey]int // how many of them there are
}

// Hub configures a hub.
type Hub struct {
	// What keeps the hub's ordered record. Default: memory.
	BrokerRaw json.RawMessage `json:"broker,omitempty" caddy:"namespace=sse.brokers inline_key=name"`

	// How many events each channel keeps for replay. Default: 1000.
	HistoryCount int `json:"history_count,omitempty"`

	// How long events are kept for replay. Default: 1h.
	HistoryAge caddy.Duration `json:"history_age,omitempty"`

	// How many bytes all kept events together may take; when they take more,
	// the oldest go. Default: 256 MiB.
	Memory int64 `json:"memory,omitempty"`

	// When Caddy stops, streams are ended one by one, spread over at most
	// this time. Negative ends them all at once. Default: 10s.
	Drain caddy.Duration `json:"drain,omitempty"`

	broker Broker
}

// defaultDrain is the greatest time over which streams are ended.
const defaultDrain = 10 * time.Second

// leastMemory is a budget that a hub can do something with.
const leastMemory = 1_000_000

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sse",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision takes over the configured hubs that are live, and prepares the
// others.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx = ctx
	a.log = ctx.Slogger()
	a.held = make(map[string]*liveHub)
	a.places = make(map[routeKey]int)
	for _, name := range slices.Sorted(maps.Keys(a.Hubs)) {
		if a.Hubs[name] == nil {
			a.Hubs[name] = new(Hub)
		}
		if err := a.Hubs[name].check(name); err != nil {
			return fmt.Errorf("hub %s: %w", name, err)
		}
		if err := a.Hubs[name].provision(ctx); err != nil {
			return fmt.Errorf("hub %s: %w", name, err)
		}
		if _, err := a.hub(name); err != nil {
			return err
		}
	}
	if err := registerMetrics(ctx); err != nil {
		return err
	}
	return a.listen(ctx)
}

// check refuses settings that make no sense.
func (c *Hub) check(name string) error {
	switch {
	case name == "":
		return errors.New("a hub needs a name")
	case c.HistoryCount < 0:
		return fmt.Errorf("history_count must be at least 1, not %d", c.HistoryCount)
	case c.HistoryAge < 0:
		return fmt.Errorf("history_age must be positive, not %s", time.Duration(c.HistoryAge))
	case c.Memory != 0 && c.Memory < leastMemory:
		return fmt.Errorf("memory must be at least %d bytes, not %d", leastMemory, c.Memory)
	}
	return nil
}

func (c *Hub) provision(ctx caddy.Context) error {
	c.broker = MemoryBroker{}
	if c.BrokerRaw == nil {
		return nil
	}
	module, err := ctx.LoadModule(c, "BrokerRaw")
	if err != nil {
		return fmt.Errorf("load broker: %w", err)
	}
	broker, ok := module.(Broker)
	if !ok {
		return fmt.Errorf("module %T is not a broker", module)
	}
	c.broker = broker
	return nil
}

func (c *Hub) options(log *slog.Logger) sse.Options {
	return sse.Options{
		HistoryCount: c.HistoryCount,
		HistoryAge:   time.Duration(c.HistoryAge),
		Memory:       c.Memory,
		Logger:       log,
	}
}

func (c *Hub) drain() time.Duration {
	if c.Drain == 0 {
		return defaultDrain
	}
	return max(time.Duration(c.Drain), 0)
}

// hub returns the hub of that name, on which the app holds a reference until its
// Cleanup. It is open when the app has started, if its broker could be reached.
func (a *App) hub(name string) (*liveHub, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if live, ok := a.held[name]; ok {
		return live, nil
	}
	config, ok := a.Hubs[name]
	if !ok {
		if name != DefaultHub {
			known := slices.Sorted(maps.Keys(a.Hubs))
			if !slices.Contains(known, DefaultHub) {
				known = append(known, DefaultHub)
			}
			return nil, fmt.Errorf("there is no hub %q: configure it with the global option `sse %s`, or use one of: %s",
				name, name, strings.Join(known, ", "))
		}
		config = a.config(name)
	}
	live, err := acquireHub(name, config)
	if err != nil {
		return nil, err
	}
	a.held[name] = live
	return live, nil
}

// enlist has the app put a handler's terms in force when the configuration has
// started. It returns the handler's identity among those in the same place.
func (a *App) enlist(s *Subscribe, key routeKey) routeKey {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.subscribing = append(a.subscribing, s)
	nth := a.places[key]
	a.places[key]++
	key.nth = nth
	return key
}

// listen has the app told when all apps of the configuration have started, and
// when Caddy is about to stop.
func (a *App) listen(ctx caddy.Context) error {
	module, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("get the events app: %w", err)
	}
	events := module.(*caddyevents.App)
	if err := events.On("started", handler(a.started)); err != nil {
		return err
	}
	return events.On("stopping", handler(a.stopping))
}

type handler func(ctx context.Context)

// Handle implements caddyevents.Handler.
func (h handler) Handle(ctx context.Context, _ caddy.Event) error {
	h(ctx)
	return nil
}

// started gives the live hubs and routes the settings of this configuration. Only now is
// it known that the configuration is good: one that fails, be it because another app
// cannot start, must change nothing. Little can make it fail later; what it has changed
// is then changed back when it is cleaned up.
func (a *App) started(context.Context) {
	for _, live := range a.all() {
		live.apply(a)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.subscribing {
		s.route.apply(s.terms)
	}
}

// stopping ends the streams before Caddy stops its servers, which would
// otherwise wait for the streams' handlers. A reload emits the same event; its
// streams live on.
func (a *App) stopping(ctx context.Context) {
	if !caddy.Exiting() {
		return
	}
	a.boundShutdown()
	var draining sync.WaitGroup
	for _, live := range a.live() {
		draining.Go(func() { live.current().Drain(ctx, a.config(live.name).drain()) })
	}
	draining.Wait()
}

// exitGrace is how long Caddy's servers may take to stop after the streams have
// ended, where the operator did not say.
const exitGrace = caddy.Duration(5 * time.Second)

// boundShutdown sees to it that Caddy can stop while a hostile client holds a
// connection. A stream that ends does not end its connection, and a server
// whose client reads no more, be it HTTP/2 or 3, would wait for it without
// bound: that is Caddy's default, and nothing in a handler's reach changes it.
// A publisher of lines that reads no answers is such a client too.
func (a *App) boundShutdown() {
	open := 0
	for _, live := range a.live() {
		open += live.current().Stats().Streams + int(live.lineStreams.Load())
	}
	module, err := a.ctx.AppIfConfigured("http")
	if open == 0 || err != nil {
		return
	}
	if servers, ok := module.(*caddyhttp.App); ok && servers.GracePeriod == 0 {
		servers.GracePeriod = exitGrace
	}
}

// all returns the hubs that the app holds, sorted by name.
func (a *App) all() []*liveHub {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(maps.Values(a.held), func(a, b *liveHub) int { return strings.Compare(a.name, b.name) })
}

// live returns those of them that are open.
func (a *App) live() []*liveHub {
	return slices.DeleteFunc(a.all(), func(l *liveHub) bool { return !l.isOpen() })
}

func (a *App) config(name string) *Hub {
	if config, ok := a.Hubs[name]; ok {
		return config
	}
	return &Hub{broker: MemoryBroker{}}
}

// Start opens the hubs that no earlier configuration had, all at once, since a broker
// may be silent. They take on the settings when everything has started.
func (a *App) Start() error {
	all := a.all()
	errs := make([]error, len(all))
	var opening sync.WaitGroup
	for i, live := range all {
		opening.Go(func() { errs[i] = live.open(a.config(live.name), a.log) })
	}
	opening.Wait()
	return cmp.Or(errs...)
}

// Stop does nothing: hubs end when the last configuration that holds them is
// cleaned up, which may be never if they go on in the next one.
func (a *App) Stop() error { return nil }

// Cleanup lets go of the hubs. It is called after a failed Provision too.
func (a *App) Cleanup() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	var errs []error
	for _, live := range a.held {
		live.retire(a)
		_, err := hubs.Delete(live.key)
		errs = append(errs, err)
	}
	a.held = nil
	return errors.Join(errs...)
}

// Interface guards
var (
	_ caddy.App           = (*App)(nil)
	_ caddy.Provisioner   = (*App)(nil)
	_ caddy.CleanerUpper  = (*App)(nil)
	_ caddyevents.Handler = handler(nil)
)
