package caddymodule

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/caddy-sse/caddy-sse/sse"
)

func init() {
	caddy.RegisterModule(Subscribe{})
}

// Subscribe is the endpoint that browsers open an EventSource on. It answers
// GET requests with an event stream of the channels that the client asks for
// with the query parameter `channel`, and of those that the route gives to
// everybody.
//
// At least one of `channels`, `allow` and `jwt` must be set. The first two may
// hold placeholders; one whose value is a list separated by commas stands for
// several entries, one whose value is empty for none. What a token's claim names
// adds to what may be asked for.
//
// A client that made an id for its stream, with the query parameter
// `connection`, can change its channels with a POST request to the same path.
//
// Access logs get the field `sse` with the stream's hub, connection, user,
// channels, how it resumed, why it ended, and how many events and bytes it was sent.
type Subscribe struct {
	// The hub to subscribe to. Default: default.
	Hub string `json:"hub,omitempty"`

	// The path under which the requests are that change a stream's channels,
	// without a slash at its end. Default: none, the request's whole path is
	// looked at. The Caddyfile takes it from the directive's path matcher.
	Base string `json:"base,omitempty"`

	// Channels and prefix patterns that every client gets. A placeholder's
	// value cannot be a pattern here.
	Channels []string `json:"channels,omitempty"`

	// Channels and prefix patterns that a client may ask for. The pattern
	// `*` allows all.
	Allow []string `json:"allow,omitempty"`

	// Who a client is, with placeholders: what `per_user` counts, and what
	// streams are listed and ended by. A token's `sub` beats it. Default:
	// {http.auth.user.id}, which Caddy's authentication sets.
	User string `json:"user,omitempty"`

	// How tokens are checked, if there are any.
	JWT *JWT `json:"jwt,omitempty"`

	// Origins of the pages that may open streams, besides the site's own, such
	// as https://app.example.com or https://*.example.com; `*` is any, without
	// cookies. Default: none.
	Origins []string `json:"origins,omitempty"`

	// For how long the channels that a client has changed outlive its stream,
	// so that it gets them back when it reconnects. Negative is not at all.
	// Default: 2m.
	Session caddy.Duration `json:"session,omitempty"`

	// The longest silence on a stream; a comment is sent to break it.
	// Negative is no keepalives. Default: 15s.
	Keepalive caddy.Duration `json:"keepalive,omitempty"`

	// How long a browser waits before it reconnects. Up to half of it is
	// added at random. Default: 3s.
	Retry caddy.Duration `json:"retry,omitempty"`

	// Streams are ended at about this age; their clients come back at once.
	// Default: no limit.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// What a client is answered for whom there is no room: `retry` is an
	// empty stream that asks it to come back later, which an EventSource
	// does; `503` is that status, on which an EventSource gives up for good.
	// Default: retry.
	Overload string `json:"overload,omitempty"`

	// What becomes of a stream whose client reads too slowly: one that lags
	// behind more than the limit, or whose next events are no longer kept.
	// `reset` skips it ahead to the newest event and tells it by `hub:reset`
	// which channels lost something; `disconnect` ends it, and its client comes
	// back and gets what it missed if that is kept. Default: reset.
	Slow string `json:"slow,omitempty"`

	// Bounds on what clients can take.
	Limits Limits `json:"limits,omitzero"`

	hub       *liveHub
	route     *route
	routeKey  *routeKey // set once a reference is held
	rules     *rules
	terms     *terms   // with them; the route takes them on when the configuration has started
	userParts []string // the placeholders in User
	log       *slog.Logger
	access    *zap.Logger // Caddy's logger of requests
}

const (
	overloadRetry = "retry"
	overload503   = "503"

	slowReset      = "reset"
	slowDisconnect = "disconnect"

	defaultSession = caddy.Duration(2 * time.Minute)
)

// CaddyModule returns the Caddy module information.
func (Subscribe) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.sse",
		New: func() caddy.Module { return new(Subscribe) },
	}
}

// Provision sets up the route.
func (s *Subscribe) Provision(ctx caddy.Context) error {
	s.log = ctx.Slogger()
	s.access = accessLogger(ctx)
	if s.Hub == "" {
		s.Hub = DefaultHub
	}
	if err := s.setUp(); err != nil {
		return err
	}
	if s.JWT != nil {
		if err := s.JWT.provision(ctx); err != nil {
			return fmt.Errorf("jwt: %w", err)
		}
	}
	var err error
	if s.rules.jwt, err = s.JWT.fingerprint(); err != nil {
		return err
	}
	module, err := ctx.App("sse")
	if err != nil {
		return err
	}
	app := module.(*App)
	if s.hub, err = app.hub(s.Hub); err != nil {
		return err
	}
	s.terms = &terms{
		hub: s.Hub, log: s.log, access: s.access, rules: s.rules,
		stream: s.streamOptions(), retry: time.Duration(s.Retry), limits: &s.Limits,
	}
	key := app.enlist(s, routeKey{hub: s.Hub, base: s.Base, place: place(ctx)})
	if s.route, s.rules, err = acquireRoute(key, *s.terms); err != nil {
		return err
	}
	s.routeKey, s.terms.rules = &key, s.rules
	rememberConns(ctx)
	return nil
}

// setUp checks the settings and gives them their defaults.
func (s *Subscribe) setUp() error {
	if len(s.Channels)+len(s.Allow) == 0 && s.JWT == nil {
		return errors.New("nobody could subscribe to anything: add `channel <name…>` for channels that every client gets, `allow <name|prefix*…>` for those that it may ask for, or `jwt { … }` for those that its token names")
	}
	channels, err := parseTemplates("channel", s.Channels)
	if err != nil {
		return err
	}
	allow, err := parseTemplates("allow", s.Allow)
	if err != nil {
		return err
	}
	if err := s.setUpClients(); err != nil {
		return err
	}
	s.rules = &rules{channels: newNameList(channels), allow: newNameList(allow), user: s.User}
	switch {
	case s.Overload != "" && s.Overload != overloadRetry && s.Overload != overload503:
		return fmt.Errorf("overload must be %s or %s, not %q", overloadRetry, overload503, s.Overload)
	case s.Slow != "" && s.Slow != slowReset && s.Slow != slowDisconnect:
		return fmt.Errorf("slow must be %s or %s, not %q", slowReset, slowDisconnect, s.Slow)
	case s.Keepalive > 0 && time.Duration(s.Keepalive) < time.Millisecond:
		return fmt.Errorf("keepalive must be at least a millisecond, not %s", time.Duration(s.Keepalive))
	case s.Retry != 0 && time.Duration(s.Retry) < time.Millisecond:
		return fmt.Errorf("retry must be at least a millisecond, not %s", time.Duration(s.Retry))
	case s.Session == 0:
		s.Session = defaultSession
	}
	return s.Limits.setUp()
}

// setUpClients checks and sets up what says who a client is.
func (s *Subscribe) setUpClients() error {
	if s.JWT != nil {
		if err := s.JWT.check(); err != nil {
			return fmt.Errorf("jwt: %w", err)
		}
	}
	if err := checkBase(s.Base); err != nil {
		return err
	}
	s.User = cmp.Or(s.User, "{"+identity+"}")
	parts, err := splitPlaceholders(s.User)
	if err != nil {
		return fmt.Errorf("user: %w", err)
	}
	s.userParts = nil
	for i := 1; i < len(parts); i += 2 {
		s.userParts = append(s.userParts, parts[i])
	}
	return origins(s.Origins).check()
}

// Cleanup lets go of the route. It is called after a failed Provision too.
func (s *Subscribe) Cleanup() error {
	var errs []error
	if s.JWT != nil {
		errs = append(errs, s.JWT.cleanup())
	}
	if s.routeKey != nil {
		s.route.retire(s.terms)
		_, err := routes.Delete(*s.routeKey)
		errs = append(errs, err)
		s.routeKey = nil
	}
	return errors.Join(errs...)
}

// streamMethods are the methods of the endpoint.
const streamMethods = "GET, HEAD, POST, OPTIONS"

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (s *Subscribe) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	var stream func()
	err := apart(func() (err error) {
		stream, err = s.open(w, r)
		return err
	})
	if stream != nil {
		err = apart(func() error { stream(); return nil })
	}
	return err
}

// open answers a request, but for the stream that is to be written then, if any.
func (s *Subscribe) open(w http.ResponseWriter, r *http.Request) (stream func(), err error) {
	err = s.JWT.conceal(w, r, func(w http.ResponseWriter, concealed *http.Request) (err error) {
		stream, err = s.answer(w, concealed)
		if stream != nil && concealed != r { // which it is to be until the end
			stream()
			stream = nil
		}
		return err
	})
	return stream, err
}

// answer is open for a request whose token is concealed.
func (s *Subscribe) answer(w http.ResponseWriter, r *http.Request) (stream func(), err error) {
	stream, err = s.serve(w, r)
	if err == nil {
		return stream, nil
	}
	p := asProblem(err)
	s.hub.refused.add(p.refusal())
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "refused a request",
		slog.String("reason", string(p.refusal())), slog.Int("status", p.Status), slog.String("detail", p.Detail))
	return nil, writeProblem(w, p)
}

func (s *Subscribe) serve(w http.ResponseWriter, r *http.Request) (stream func(), err error) {
	if err := origins(s.Origins).admit(w, r); err != nil {
		return nil, err
	}
	switch r.Method {
	case http.MethodOptions:
		preflight(w, r)
		return nil, nil
	case http.MethodGet, http.MethodHead, http.MethodPost:
	default:
		return nil, methodNotAllowed(r.Method, streamMethods)
	}
	c, err := s.identify(r)
	if errors.Is(err, errNoKeys) && r.Method == http.MethodGet {
		return nil, s.turnAway(w, refusedUnavailable, err)
	}
	if err != nil {
		return nil, err
	}
	if r.Method == http.MethodPost {
		return nil, s.change(w, r, c)
	}
	return s.subscribe(w, r, c)
}

// subscribe returns what writes the stream.
func (s *Subscribe) subscribe(w http.ResponseWriter, r *http.Request, c *client) (stream func(), err error) {
	want, err := s.read(r, c)
	if err != nil {
		return nil, err
	}
	if r.Method == http.MethodHead {
		sse.SetHeader(w.Header())
		w.WriteHeader(http.StatusOK)
		return nil, nil
	}
	if err := s.hub.await(r.Context()); err != nil {
		return nil, s.turnAway(w, refusedUnavailable, err)
	}
	o := &openStream{route: s.route, seat: seat{guest: &guest{owner: owner{want.Connection, c.user}, address: c.address}, rules: s.rules, own: c.own.clone()}}
	if full, n := s.route.enter(&o.seat, &s.Limits); full != "" {
		return nil, s.turnAway(w, full, full.tooMany(n))
	}
	begun := false
	defer func() {
		if !begun { // but panicked, as a writer around the answer may
			o.giveBack()
		}
	}()
	subscriber, err := s.hub.current().Subscribe(r.Context(), want)
	if err != nil {
		o.giveBack() // before the client is told, who may ask again
		return nil, s.refuseStream(w, err)
	}
	if !s.route.begin(&o.seat, subscriber) {
		o.giveBack()
		return nil, s.turnAway(w, refusedUnavailable, sse.ErrDraining)
	}
	stream, begun = o.begin(s, w, r), true
	return stream, nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Subscribe)(nil)
	_ caddy.CleanerUpper          = (*Subscribe)(nil)
	_ caddyhttp.MiddlewareHandler = (*Subscribe)(nil)
)
