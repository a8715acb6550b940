package caddymodule

import (
	"encoding/json"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("sse", parseGlobal)
	httpcaddyfile.RegisterDirective("sse", parseSubscribe)
	httpcaddyfile.RegisterDirective("sse_api", parseAPI)
	// Behind whatever authenticates and rewrites, before what responds.
	httpcaddyfile.RegisterDirectiveOrder("sse", httpcaddyfile.Before, "respond")
	httpcaddyfile.RegisterDirectiveOrder("sse_api", httpcaddyfile.Before, "respond")
}

// parseGlobal adds a hub to the app. It may be given once for each hub.
func parseGlobal(d *caddyfile.Dispenser, existing any) (any, error) {
	app := new(App)
	if previous, ok := existing.(httpcaddyfile.App); ok {
		if err := json.Unmarshal(previous.Value, app); err != nil {
			return nil, err
		}
	}
	if err := app.UnmarshalCaddyfile(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "sse", Value: caddyconfig.JSON(app, nil)}, nil
}

// UnmarshalCaddyfile adds a hub from Caddyfile tokens. Syntax:
//
//	sse [<hub>] {
//	    broker   memory | bolt <file> { … } | redis <url> { … }
//	    history  <count> <age>
//	    memory   <size>
//	    drain    <duration> | off
//	}
func (a *App) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the option's name
	name := DefaultHub
	if d.NextArg() {
		name = d.Val()
	}
	start := *d
	if _, ok := a.Hubs[name]; ok {
		return d.Errf("hub %s is configured twice", name)
	}
	hub := new(Hub)
	if a.Hubs == nil {
		a.Hubs = make(map[string]*Hub)
	}
	a.Hubs[name] = hub
	err := parseBlock(d, options{
		"broker": func() error { return hub.parseBroker(d) },
		"history": func() error {
			if err := parseCount(d, &hub.HistoryCount); err != nil {
				return err
			}
			return parseDuration(d, &hub.HistoryAge)
		},
		"memory": func() error {
			if err := parseSize(d, &hub.Memory); err != nil {
				return err
			}
			if err := hub.check(name); err != nil {
				return d.WrapErr(err)
			}
			return nil
		},
		"drain": func() error { return parseDurationOrOff(d, &hub.Drain) },
	})
	if err != nil {
		return err
	}
	return atDirective(start, hub.check(name))
}

func (c *Hub) parseBroker(d *caddyfile.Dispenser) error {
	if !d.NextArg() {
		return d.ArgErr()
	}
	name := d.Val()
	module, err := caddyfile.UnmarshalModule(d, "sse.brokers."+name)
	if err != nil {
		return err
	}
	c.BrokerRaw = caddyconfig.JSONModuleObject(module, "name", name, nil)
	return nil
}

// parseSubscribe takes the base of the requests that change a stream from the
// path matcher, if there is one: what is under /events* has them at
// /events/subscribe/{channel} and so on.
func parseSubscribe(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	base, matchers, err := readMatcher(h)
	if err != nil {
		return nil, err
	}
	s := &Subscribe{Base: base}
	if err := s.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(matchers, s), nil
}

// readMatcher reads a directive's name and its matcher, and what that says the
// base of the requests is.
func readMatcher(h httpcaddyfile.Helper) (base string, matchers caddy.ModuleMap, err error) {
	h.Next() // the directive's name
	if h.NextArg() {
		if strings.HasPrefix(h.Val(), "/") {
			base = strings.TrimRight(strings.TrimSuffix(h.Val(), "*"), "/")
		}
		h.Prev()
	}
	matchers, err = h.ExtractMatcherSet()
	return base, matchers, err
}

// UnmarshalCaddyfile sets up the endpoint from Caddyfile tokens. Syntax:
//
//	sse [<matcher>] {
//	    hub        <name>
//	    channel    <name…>
//	    allow      <name|prefix*…>
//	    user       <placeholder>
//	    jwt        { … }
//	    origins    <origin…>
//	    session    <duration> | off
//	    keepalive  <duration> | off
//	    retry      <duration>
//	    max_age    <duration> | off
//	    overload   retry | 503
//	    limits {
//	        connections <n>
//	        per_ip      <n>
//	        per_user    <n>
//	        channels    <n>
//	        replay      <n>
//	        lag         <size>
//	    }
//	    slow       reset | disconnect
//	}
func (s *Subscribe) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	start := *d
	err := parseBlock(d, options{
		"hub":       func() error { return parseString(d, &s.Hub) },
		"channel":   func() error { return parseStrings(d, &s.Channels) },
		"allow":     func() error { return parseStrings(d, &s.Allow) },
		"user":      func() error { return parseString(d, &s.User) },
		"jwt":       func() error { return parseJWT(d, &s.JWT) },
		"origins":   func() error { return parseStrings(d, &s.Origins) },
		"session":   func() error { return parseDurationOrOff(d, &s.Session) },
		"keepalive": func() error { return parseDurationOrOff(d, &s.Keepalive) },
		"retry":     func() error { return parseDuration(d, &s.Retry) },
		"max_age":   func() error { return parseDurationOrOff(d, &s.MaxAge) },
		"overload":  func() error { return parseString(d, &s.Overload) },
		"limits":    func() error { return s.Limits.parse(d) },
		"slow":      func() error { return parseString(d, &s.Slow) },
	})
	if err != nil {
		return err
	}
	return atDirective(start, new(*s).setUp())
}

func (l *Limits) parse(d *caddyfile.Dispenser) error {
	err := parseBlock(d, options{
		"connections": func() error { return parseCount(d, &l.Connections) },
		"per_ip":      func() error { return parseCount(d, &l.PerIP) },
		"per_user":    func() error { return parseCount(d, &l.PerUser) },
		"channels":    func() error { return parseCount(d, &l.Channels) },
		"replay":      func() error { return parseCount(d, &l.Replay) },
		"lag":         func() error { return parseSize(d, &l.Lag) },
	})
	if err == nil && *l == (Limits{}) {
		err = d.Err("limits needs a block that sets at least one of connections, per_ip, per_user, channels, replay, lag")
	}
	return err
}

// parseJWT reads how tokens are checked.
func parseJWT(d *caddyfile.Dispenser, into **JWT) error {
	*into = new(JWT)
	return (*into).parse(d)
}

// parseAPI takes the API's base from the path matcher, if there is one: what
// is under /sse* has its requests at /sse/publish and so on.
func parseAPI(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
	base, matchers, err := readMatcher(h)
	if err != nil {
		return nil, err
	}
	a := &API{Base: base}
	if err := a.UnmarshalCaddyfile(h.Dispenser); err != nil {
		return nil, err
	}
	return h.NewRoute(matchers, a), nil
}

// UnmarshalCaddyfile sets up the endpoint from Caddyfile tokens. Syntax:
//
//	sse_api [<matcher>] {
//	    hub       <name>
//	    token     <secret…>
//	    jwt       { … }
//	    unauthenticated
//	    allow     <name|prefix*…>
//	    rate      <events a second> [<burst>]
//	    max_body  <size>
//	}
//
// One of token, jwt and unauthenticated must be there.
func (a *API) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // the directive's name
	start := *d
	err := parseBlock(d, options{
		"hub":             func() error { return parseString(d, &a.Hub) },
		"token":           func() error { return parseStrings(d, &a.Tokens) },
		"unauthenticated": func() error { a.Unauthenticated = true; return nil },
		"jwt":             func() error { return parseJWT(d, &a.JWT) },
		"allow":           func() error { return parseStrings(d, &a.Allow) },
		"rate":            func() error { return a.Rate.parse(d) },
		"max_body":        func() error { return parseSize(d, &a.MaxBody) },
	})
	if err != nil {
		return err
	}
	return atDirective(start, new(*a).setUp())
}
