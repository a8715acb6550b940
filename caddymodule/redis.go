package caddymodule

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/caddy-sse/caddy-sse/sse"
	"github.com/caddy-sse/caddy-sse/sse/redisbroker"
)

func init() {
	caddy.RegisterModule(new(RedisBroker))
}

// RedisBroker keeps a hub's record in Redis, or what is compatible with it, such
// as Valkey. All Caddies whose hub has the same name, on the same Redis and with the
// same prefix, share the record: what is published to one reaches the subscribers of
// all, and who drops from one resumes on another.
//
// A Redis that cannot be reached does not keep Caddy from starting. Until it can,
// publishes get 503, and subscribers are told to come back.
//
// The oldest events go when there are more, or older or larger ones, than
// these settings say. Caddies that share a record should have the same ones.
type RedisBroker struct {
	// Where Redis is, and which user this is:
	// `redis://user:password@host:6379/0`, `rediss://host` with TLS,
	// `unix:///run/redis.sock`,
	// `redis://sentinel1:26379?addr=sentinel2:26379&master_set=mymaster`, or
	// `redis://node1:6379?addr=node2:6379` for a Cluster. Placeholders are replaced when
	// the configuration is loaded, so that a password need not stand here:
	// `{env.REDIS_URL}`.
	URL string `json:"url,omitempty"`

	// What the names of all keys begin with, behind an opening brace. Default: sse.
	Prefix string `json:"prefix,omitempty"`

	// How many events are kept, of all channels together. Default: 100000.
	MaxEvents int `json:"max_events,omitempty"`

	// For how long events are kept. Default: 24h.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// How many bytes of events are kept. Redis takes some tenths more memory.
	// Default: 256 MiB.
	MaxSize int64 `json:"max_size,omitempty"`

	// What becomes of the record when Redis was restarted, or another server took over:
	// `begin_anew` tells all subscribers by a reset that they may have missed events,
	// since most Redises lose what came last. `go_on` keeps the record as it is found,
	// for a Redis that loses nothing that it answered (`appendonly yes` and
	// `appendfsync always`, and no replica that may take over). Default: begin_anew.
	AfterRestart string `json:"after_restart,omitempty"`

	// For how long Redis may be silent before it counts as away. Default: 3s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// Which certificates are used with TLS, for Sentinels too. The URL must begin with
	// `rediss://`. Default: those that the system trusts, and none of its own.
	TLS *RedisTLS `json:"tls,omitempty"`

	// The user and the password for the Sentinels, if they ask for one. Placeholders are
	// replaced when the configuration is loaded.
	SentinelUsername string `json:"sentinel_username,omitempty"`
	SentinelPassword string `json:"sentinel_password,omitempty"`

	settings redisbroker.Options
}

// The values of after_restart.
const (
	beginAnew = "begin_anew"
	goOn      = "go_on"
)

// CaddyModule returns the Caddy module information.
func (*RedisBroker) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "sse.brokers.redis",
		New: func() caddy.Module { return new(RedisBroker) },
	}
}

// Provision checks the settings, and asks nobody.
func (b *RedisBroker) Provision(caddy.Context) error {
	if err := b.check(); err != nil {
		return err
	}
	b.settings = b.options()
	repl := caddy.NewReplacer()
	for name, text := range map[string]*string{
		"url": &b.settings.URL, "prefix": &b.settings.Prefix,
		"sentinel_username": &b.settings.SentinelUsername, "sentinel_password": &b.settings.SentinelPassword,
	} {
		var err error
		if *text, err = repl.ReplaceOrErr(*text, true, true); err != nil {
			return fmt.Errorf("%s: %w; is the environment variable set?", name, err)
		}
	}
	var err error
	if b.settings.TLS, err = b.TLS.load(repl); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	return b.settings.Check()
}

// check refuses settings that make no sense.
func (b *RedisBroker) check() error {
	switch {
	case b.URL == "":
		return errors.New("the URL is missing, as in `broker redis redis://localhost:6379`, or `broker redis {env.REDIS_URL}` if it has a password")
	case b.MaxEvents < 0:
		return fmt.Errorf("max_events must be at least 1, not %d", b.MaxEvents)
	case b.MaxAge < 0:
		return fmt.Errorf("max_age must be positive, not %s", time.Duration(b.MaxAge))
	case b.MaxSize != 0 && b.MaxSize < leastMemory:
		return fmt.Errorf("max_size must be at least %d bytes, not %d", leastMemory, b.MaxSize)
	case b.Timeout < 0:
		return fmt.Errorf("timeout must be positive, not %s", time.Duration(b.Timeout))
	case b.AfterRestart != "" && b.AfterRestart != beginAnew && b.AfterRestart != goOn:
		return fmt.Errorf("after_restart must be %s or %s, not %q", beginAnew, goOn, b.AfterRestart)
	}
	if err := b.TLS.check(); err != nil {
		return fmt.Errorf("tls: %w", err)
	}
	if strings.Contains(b.URL+b.Prefix, "{") {
		return nil // nobody knows yet what it is
	}
	options := b.options()
	if b.TLS != nil {
		options.TLS = new(tls.Config)
	}
	return options.Check()
}

// options returns the settings as they are written.
func (b *RedisBroker) options() redisbroker.Options {
	o := redisbroker.Options{
		URL:              b.URL,
		Prefix:           b.Prefix,
		MaxEvents:        b.MaxEvents,
		MaxAge:           time.Duration(b.MaxAge),
		MaxBytes:         b.MaxSize,
		Timeout:          time.Duration(b.Timeout),
		SentinelUsername: b.SentinelUsername,
		SentinelPassword: b.SentinelPassword,
	}
	if b.AfterRestart == goOn {
		o.AfterRestart = redisbroker.GoOn
	}
	return o
}

// of returns the options for a hub.
func (b *RedisBroker) of(hub string, log *slog.Logger) redisbroker.Options {
	o := b.settings
	o.Hub, o.Logger = hub, log
	return o
}

// Identity implements [Broker]. Passwords and certificates may change on an open record.
func (b *RedisBroker) Identity() string { return "redis " + b.settings.Record() }

// Open implements [Broker].
func (b *RedisBroker) Open(hub string, log *slog.Logger) (sse.Broker, error) {
	return redisbroker.Open(b.of(hub, log))
}

// Apply implements [Broker].
func (b *RedisBroker) Apply(record sse.Broker, log *slog.Logger) {
	record.(*redisbroker.Broker).SetOptions(b.of("", log)) // what Open returned, which stays with its hub
}

// UnmarshalCaddyfile sets up the broker from Caddyfile tokens. Syntax:
//
//	broker redis <url> {
//	    prefix        <name>
//	    max_events    <n>
//	    max_age       <duration>
//	    max_size      <size>
//	    after_restart begin_anew | go_on
//	    timeout       <duration>
//	    tls {
//	        ca          <file>
//	        certificate <file> <key file>
//	    }
//	    sentinel_auth [<user>] <password>
//	}
func (b *RedisBroker) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the name
	start := *d
	if !d.NextArg() {
		return d.WrapErr(b.check())
	}
	b.URL = d.Val()
	if d.CountRemainingArgs() > 0 { // which may be the rest of a password
		return d.Err("there is one URL; write what is special in a URL as in p%40ss")
	}
	err := parseBlock(d, options{
		"prefix":        func() error { return parseString(d, &b.Prefix) },
		"max_events":    func() error { return parseCount(d, &b.MaxEvents) },
		"max_age":       func() error { return parseDuration(d, &b.MaxAge) },
		"max_size":      func() error { return parseSize(d, &b.MaxSize) },
		"after_restart": func() error { return parseString(d, &b.AfterRestart) },
		"timeout":       func() error { return parseDuration(d, &b.Timeout) },
		"tls":           func() error { b.TLS = new(RedisTLS); return b.TLS.parse(d) },
		"sentinel_auth": func() error { return b.parseSentinelAuth(d) },
	})
	if err != nil {
		return err
	}
	return atDirective(start, b.check())
}

func (b *RedisBroker) parseSentinelAuth(d *caddyfile.Dispenser) error {
	given := d.RemainingArgs()
	switch len(given) {
	case 1:
		b.SentinelPassword = given[0]
	case 2:
		b.SentinelUsername, b.SentinelPassword = given[0], given[1]
	default:
		return d.Err("sentinel_auth takes a password, or a user and a password")
	}
	return nil
}

// Interface guards
var (
	_ Broker                = (*RedisBroker)(nil)
	_ caddy.Provisioner     = (*RedisBroker)(nil)
	_ caddyfile.Unmarshaler = (*RedisBroker)(nil)
)
