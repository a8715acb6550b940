package caddymodule

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

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
	mu   sync.Mutex          // guards held
	held map[string]*liveHub // by name; each is one reference into the pool
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

// leastMemory keeps one large event from pushing out everything else.
const leastMemory = 1 << 20

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sse",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision opens the configured hubs, or takes over those that are live.
func (a *App) Provision(ctx caddy.Context) error {
	a.ctx = ctx
	a.log = ctx.Slogger()
	a.held = make(map[string]*liveHub)
	for _, name := range slices.Sorted(maps.Keys(a.Hubs)) {
		if a.Hubs[name] == nil {
			a.Hubs[name] = new(Hub)
		}
		if err := a.Hubs[name].provision(ctx); err != nil {
			return fmt.Errorf("hub %s: %w", name, err)
		}
		if _, err := a.hub(name); err != nil {
			return err
		}
	}
	if err := ctx.GetMetricsRegistry().Register(collector{a}); err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	return a.drainOnExit(ctx)
}

func (c *Hub) provision(ctx caddy.Context) error {
	switch {
	case c.HistoryCount < 0:
		return fmt.Errorf("history_count must be at least 1, not %d", c.HistoryCount)
	case c.HistoryAge < 0:
		return fmt.Errorf("history_age must be positive, not %s", time.Duration(c.HistoryAge))
	case c.Memory != 0 && c.Memory < leastMemory:
		return fmt.Errorf("memory must be at least %d bytes, not %d", leastMemory, c.Memory)
	}
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

// hub returns the live hub of that name, on which the app holds a reference
// until its Cleanup.
func (a *App) hub(name string) (*liveHub, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if live, ok := a.held[name]; ok {
		return live, nil
	}
	config, ok := a.Hubs[name]
	if !ok {
		if name != DefaultHub {
			return nil, fmt.Errorf("there is no hub %q: configure it with the global option `sse %s`, or use one of: %s",
				name, name, strings.Join(slices.Sorted(maps.Keys(a.Hubs)), ", "))
		}
		config = &Hub{broker: MemoryBroker{}}
	}
	live, err := acquireHub(name, config, a.log)
	if err != nil {
		return nil, fmt.Errorf("open hub %s: %w", name, err)
	}
	a.held[name] = live
	return live, nil
}

// drainOnExit ends the streams before Caddy stops its servers, which would
// otherwise wait for the streams' handlers.
func (a *App) drainOnExit(ctx caddy.Context) error {
	module, err := ctx.App("events")
	if err != nil {
		return fmt.Errorf("get the events app: %w", err)
	}
	return module.(*caddyevents.App).On("stopping", exitHandler{a})
}

type exitHandler struct{ app *App }

// Handle implements caddyevents.Handler. A reload emits the same event; its
// streams live on.
func (h exitHandler) Handle(ctx context.Context, _ caddy.Event) error {
	if !caddy.Exiting() {
		return nil
	}
	var draining sync.WaitGroup
	for _, live := range h.app.live() {
		draining.Go(func() { live.Drain(ctx, h.app.config(live.name).drain()) })
	}
	draining.Wait()
	return nil
}

// live returns the hubs that the app holds, sorted by name.
func (a *App) live() []*liveHub {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.SortedFunc(maps.Values(a.held), func(a, b *liveHub) int { return strings.Compare(a.name, b.name) })
}

func (a *App) config(name string) *Hub {
	if config, ok := a.Hubs[name]; ok {
		return config
	}
	return new(Hub)
}

// Start gives the live hubs the settings of this configuration. Only now is it
// known that the configuration is good: one that fails must change nothing.
func (a *App) Start() error {
	for _, live := range a.live() {
		live.SetOptions(a.config(live.name).options(a.log))
	}
	return nil
}

// Stop does nothing: hubs end when the last configuration that holds them is
// cleaned up, which may be never if they go on in the next one.
func (a *App) Stop() error { return nil }

// Cleanup lets go of the hubs. It is called after a failed Provision too.
func (a *App) Cleanup() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, live := range a.held {
		if _, err := hubs.Delete(live.key); err != nil {
			return err
		}
	}
	a.held = nil
	return nil
}

// Interface guards
var (
	_ caddy.App           = (*App)(nil)
	_ caddy.Provisioner   = (*App)(nil)
	_ caddy.CleanerUpper  = (*App)(nil)
	_ caddyevents.Handler = exitHandler{}
)
