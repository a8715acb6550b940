package caddymodule

import (
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
	// Open opens the record. The hub closes it.
	Open() (sse.Broker, error)
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
func (MemoryBroker) Open() (sse.Broker, error) { return sse.NewMemoryBroker(), nil }

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
