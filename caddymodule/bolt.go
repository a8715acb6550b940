package caddymodule

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/boltbroker"
)

func init() {
	caddy.RegisterModule(new(BoltBroker))
}

// BoltBroker keeps a hub's record in one file on this machine. What was
// published survives a crash of the process and a power cut, and subscribers
// that come back afterwards miss nothing.
//
// The oldest events go when there are more, or older or larger ones, than
// these settings say. The file does not shrink, but the space is used again.
type BoltBroker struct {
	// The file, which is created if it is missing. A relative path is
	// relative to the working directory. Placeholders are replaced when the
	// configuration is loaded.
	File string `json:"file,omitempty"`

	// How many events are kept, of all channels together. Default: 1000000.
	MaxEvents int `json:"max_events,omitempty"`

	// For how long events are kept. Default: 24h.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// How many bytes of events are kept. Default: 1 GiB.
	MaxSize int64 `json:"max_size,omitempty"`

	path string
}

// CaddyModule returns the Caddy module information.
func (*BoltBroker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sse.brokers.bolt",
		New: func() caddy.Module { return new(BoltBroker) },
	}
}

// Provision checks the settings.
func (b *BoltBroker) Provision(caddy.Context) error {
	if err := b.check(); err != nil {
		return err
	}
	file, err := caddy.NewReplacer().ReplaceOrErr(b.File, true, true)
	if err != nil {
		return fmt.Errorf("file: %w", err)
	}
	b.path, err = filepath.Abs(file)
	return err
}

// check refuses settings that make no sense.
func (b *BoltBroker) check() error {
	switch {
	case b.File == "":
		return errors.New("the file is missing, as in `broker bolt /var/lib/caddy/sse.db`")
	case b.MaxEvents < 0:
		return fmt.Errorf("max_events must be at least 1, not %d", b.MaxEvents)
	case b.MaxAge < 0:
		return fmt.Errorf("max_age must be positive, not %s", time.Duration(b.MaxAge))
	case b.MaxSize != 0 && b.MaxSize < leastMemory:
		return fmt.Errorf("max_size must be at least %d bytes, not %d", leastMemory, b.MaxSize)
	}
	return nil
}

// Identity implements [Broker].
func (b *BoltBroker) Identity() string { return "bolt " + b.path }

// Open implements [Broker].
func (b *BoltBroker) Open(_ string, log *slog.Logger) (sse.Broker, error) {
	return boltbroker.Open(b.path, b.options(log))
}

// Apply implements [Broker].
func (b *BoltBroker) Apply(record sse.Broker, log *slog.Logger) {
	record.(*boltbroker.Broker).SetOptions(b.options(log)) // what Open returned
}

func (b *BoltBroker) options(log *slog.Logger) boltbroker.Options {
	return boltbroker.Options{
		MaxEvents: b.MaxEvents,
		MaxAge:    time.Duration(b.MaxAge),
		MaxBytes:  b.MaxSize,
		Logger:    log,
	}
}

// UnmarshalCaddyfile sets up the broker from Caddyfile tokens. Syntax:
//
//	broker bolt <file> {
//	    max_events <n>
//	    max_age    <duration>
//	    max_size   <size>
//	}
func (b *BoltBroker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	start := *d
	if !d.NextArg() {
		return d.WrapErr(b.check())
	}
	b.File = d.Val()
	err := parseBlock(d, options{
		"max_events": func() error { return parseCount(d, &b.MaxEvents) },
		"max_age":    func() error { return parseDuration(d, &b.MaxAge) },
		"max_size":   func() error { return parseSize(d, &b.MaxSize) },
	})
	if err != nil {
		return err
	}
	return atDirective(start, b.check())
}

// Interface guards
var (
	_ Broker                = (*BoltBroker)(nil)
	_ caddy.Provisioner     = (*BoltBroker)(nil)
	_ caddyfile.Unmarshaler = (*BoltBroker)(nil)
)
