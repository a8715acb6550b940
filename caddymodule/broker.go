package caddymodule

import (
	"log/slog"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-sse/caddy-sse/sse"
)

func init() {
	caddy.RegisterModule(MemoryBroker{})
}

// A Broker is a guest module in the namespace sse.brokers: it says what stands
// behind a hub.
type Broker interface {
	// Identity names the record that the broker opens. Configurations that
	// give a hub the same identity share the live hub over a reload,
	// whatever else they say.
	Identity() string
	// Open opens the record of a hub, which logs there until Apply says otherwise.
	// It is closed when no configuration has a hub on it any more. An error that
	// matches [sse.ErrUnavailable] does not keep Caddy from starting: Open is called
	// again until it works. What else is wrong does.
	Open(hub string, log *slog.Logger) (sse.Broker, error)
	// Apply gives the settings of this configuration to a live record, which
	// it or an earlier configuration of the same identity opened.
	Apply(record sse.Broker, log *slog.Logger)
}

// MemoryBroker keeps a hub's record in the process. Events survive reloads of
// the configuration, and end with the process: subscribers that come back
// afterwards are told that they may have missed events.
type MemoryBroker struct{}

// CaddyModule returns the Caddy module information.
func (MemoryBroker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sse.brokers.memory",
		New: func() caddy.Module { return new(MemoryBroker) },
	}
}

// Identity implements [Broker].
func (MemoryBroker) Identity() string { return "memory" }

// Open implements [Broker].
func (MemoryBroker) Open(string, *slog.Logger) (sse.Broker, error) { return sse.NewMemoryBroker(), nil }

// Apply implements [Broker]. There is nothing to set.
func (MemoryBroker) Apply(sse.Broker, *slog.Logger) {}

// UnmarshalCaddyfile sets up the broker from Caddyfile tokens. Syntax:
//
//	broker memory
func (*MemoryBroker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	return parseBlock(d, options{})
}

// Interface guards
var (
	_ Broker                = MemoryBroker{}
	_ caddyfile.Unmarshaler = (*MemoryBroker)(nil)
)
