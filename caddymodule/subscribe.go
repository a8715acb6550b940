package caddymodule

import (
	"crypto/rand"
	"encoding/json"
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
// At least one of `channels` and `allow` must be set. Both may hold
// placeholders; one whose value is a list separated by commas stands for
// several entries, one whose value is empty for none.
//
// Access logs get the field `sse` with the stream's hub, connection, channels,
// how it resumed, why it ended, and how many events it was sent.
type Subscribe struct {
	// The hub to subscribe to. Default: default.
	Hub string `json:"hub,omitempty"`

	// Channels and prefix patterns that every client gets. A placeholder's
	// value cannot be a pattern here.
	Channels []string `json:"channels,omitempty"`

	// Channels and prefix patterns that a client may ask for. The pattern
	// `*` allows all.
	Allow []string `json:"allow,omitempty"`

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

	// Bounds on what clients can take.
	Limits Limits `json:"limits,omitzero"`

	hub      *liveHub
	route    *route
	routeKey *routeKey // set once a reference is held
	channels []template
	allow    []template
	log      *slog.Logger
}

// Limits bound what clients can take.
type Limits struct {
	// Streams that are open on this route at one time. Default: no limit.
	Connections int `json:"connections,omitempty"`

	// Channels and patterns of one stream. Default: 100.
	Channels int `json:"channels,omitempty"`

	// Events that a client which comes back may have missed. One that
	// missed more is told so instead. Negative is no limit. Default: 10000.
	Replay int `json:"replay,omitempty"`
}

const (
	overloadRetry = "retry"
	overload503   = "503"

	defaultLimitChannels = 100
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
	config, err := json.Marshal(s)
	if err != nil {
		return err
	}
	s.log = ctx.Slogger()
	if s.Hub == "" {
		s.Hub = DefaultHub
	}
	if err := s.setUp(); err != nil {
		return err
	}
	app, err := ctx.App("sse")
	if err != nil {
		return err
	}
	if s.hub, err = app.(*App).hub(s.Hub); err != nil {
		return err
	}
	key := routeKey{hub: s.Hub, config: string(config), place: place(ctx)}
	value, _, err := routes.LoadOrNew(key, newRoute)
	if err != nil {
		return err
	}
	s.route, s.routeKey = value.(*route), &key
	return nil
}

// setUp checks the settings and gives them their defaults.
func (s *Subscribe) setUp() (err error) {
	if len(s.Channels)+len(s.Allow) == 0 {
		return errors.New("nobody could subscribe to anything: add `channel <name…>` for channels that every client gets, or `allow <name|prefix*…>` for those that it may ask for")
	}
	if s.channels, err = parseTemplates("channel", s.Channels); err != nil {
		return err
	}
	if s.allow, err = parseTemplates("allow", s.Allow); err != nil {
		return err
	}
	switch {
	case s.Overload != "" && s.Overload != overloadRetry && s.Overload != overload503:
		return fmt.Errorf("overload must be %s or %s, not %q", overloadRetry, overload503, s.Overload)
	case s.Keepalive > 0 && time.Duration(s.Keepalive) < time.Millisecond:
		return fmt.Errorf("keepalive must be at least a millisecond, not %s", time.Duration(s.Keepalive))
	case s.Retry != 0 && time.Duration(s.Retry) < time.Millisecond:
		return fmt.Errorf("retry must be at least a millisecond, not %s", time.Duration(s.Retry))
	case s.Limits.Connections < 0:
		return fmt.Errorf("limits: connections must be at least 1, not %d", s.Limits.Connections)
	case s.Limits.Channels < 0:
		return fmt.Errorf("limits: channels must be at least 1, not %d", s.Limits.Channels)
	case s.Limits.Channels == 0:
		s.Limits.Channels = defaultLimitChannels
	}
	return nil
}

// Cleanup lets go of the route. It is called after a failed Provision too.
func (s *Subscribe) Cleanup() error {
	if s.routeKey == nil {
		return nil
	}
	_, err := routes.Delete(*s.routeKey)
	s.routeKey = nil
	return err
}

// ServeHTTP implements caddyhttp.MiddlewareHandler.
func (s *Subscribe) ServeHTTP(w http.ResponseWriter, r *http.Request, _ caddyhttp.Handler) error {
	err := s.serve(w, r)
	if err == nil {
		return nil
	}
	p := asProblem(err)
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "refused a stream",
		slog.Int("status", p.Status), slog.String("detail", p.Detail))
	return writeProblem(w, p)
}

func (s *Subscribe) serve(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		return methodNotAllowed(r.Method, "GET, HEAD")
	}
	want, err := s.read(r)
	if err != nil {
		return err
	}
	if r.Method == http.MethodHead {
		sse.SetHeader(w.Header())
		w.WriteHeader(http.StatusOK)
		return nil
	}
	if err := s.hub.await(r.Context()); err != nil {
		return s.turnAway(w, err)
	}
	subscriber, err := s.hub.Subscribe(r.Context(), want)
	switch {
	case errors.Is(err, sse.ErrEnded):
		w.WriteHeader(http.StatusNoContent) // upon which an EventSource stops
		return nil
	case err != nil:
		return s.turnAway(w, err)
	}
	switch s.route.add(subscriber, s.Limits.Connections) {
	case full:
		subscriber.Leave()
		return s.turnAway(w, fmt.Errorf("this route has %d streams, as many as it may", s.Limits.Connections))
	case removed:
		subscriber.Leave()
		return s.turnAway(w, sse.ErrDraining)
	case admitted:
	}
	defer s.route.remove(subscriber)
	s.stream(w, r, subscriber, want)
	return nil
}

func (s *Subscribe) stream(w http.ResponseWriter, r *http.Request, subscriber *sse.Subscriber, want sse.SubscribeOptions) {
	start := time.Now()
	fields := []zap.Field{
		zap.String("hub", s.Hub),
		zap.String("connection", want.Connection),
		zap.Strings("channels", want.Channels),
		zap.String("resume", string(subscriber.Resume())),
	}
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "stream opened",
		slog.String("connection", want.Connection), slog.Any("channels", want.Channels))

	end := subscriber.Stream(r.Context(), w, sse.StreamOptions{
		Keepalive: time.Duration(s.Keepalive),
		MaxAge:    time.Duration(s.MaxAge),
	})

	fields = append(fields, zap.String("reason", string(end.Reason)), zap.Uint64("events", end.Events))
	attrs := []slog.Attr{
		slog.String("connection", want.Connection), slog.String("reason", string(end.Reason)),
		slog.Uint64("events", end.Events), slog.Uint64("bytes", end.Bytes), slog.Duration("duration", time.Since(start)),
	}
	if end.Err != nil {
		fields = append(fields, zap.String("error", end.Err.Error()))
		attrs = append(attrs, slog.Any("error", end.Err))
	}
	if extra, ok := r.Context().Value(caddyhttp.ExtraLogFieldsCtxKey).(*caddyhttp.ExtraLogFields); ok {
		extra.Set(zap.Dict("sse", fields...))
	}
	s.log.LogAttrs(r.Context(), slog.LevelDebug, "stream closed", attrs...)
}

// turnAway answers a client for whom there is no room.
func (s *Subscribe) turnAway(w http.ResponseWriter, reason error) error {
	if s.hub.isOpen() {
		s.hub.CountRefusal()
	}
	if s.Overload == overload503 {
		return problemf(http.StatusServiceUnavailable, "%s", reason).with("Retry-After", "10")
	}
	s.log.Debug("turned a stream away", slog.String("reason", reason.Error()))
	// The client may be gone already; there is nobody else to tell.
	_ = sse.Refuse(w)
	return nil
}

// newConnection returns an identity that nobody can guess.
func newConnection() string {
	return rand.Text() // 128 bits or more
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Subscribe)(nil)
	_ caddy.CleanerUpper          = (*Subscribe)(nil)
	_ caddyhttp.MiddlewareHandler = (*Subscribe)(nil)
)
